#include "mnemosyne/tasks/stacked/module_model.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/nn/module.h>

#include <mutex>
#include <unordered_map>
#include <utility>

#include "mnemosyne/core/error.h"
#include "mnemosyne/core/pool.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/nn/module_metadata.h"
#include "mnemosyne/nn/module_tensors.h"

namespace mnemosyne::tasks {
namespace {

/// Modules draw their initial values from torch's global generator: gives it a seed, and its old
/// state back at the end. One at a time.
class SeededGlobalGenerator {
 public:
  explicit SeededGlobalGenerator(uint64_t seed) : lock_(mutex()) {
    at::Generator& generator = global();
    const std::lock_guard<std::mutex> guard(generator.mutex());
    state_ = generator.get_state();
    generator.set_current_seed(seed);
  }
  ~SeededGlobalGenerator() {
    at::Generator& generator = global();
    const std::lock_guard<std::mutex> guard(generator.mutex());
    generator.set_state(state_);
  }

 private:
  static std::mutex& mutex() {
    static std::mutex instance;
    return instance;
  }
  static at::Generator& global() {
    return const_cast<at::Generator&>(at::detail::getDefaultCPUGenerator());
  }

  std::lock_guard<std::mutex> lock_;
  at::Tensor state_;
};

Network make_network(const NetworkFactory& factory, uint64_t seed, at::Device device) {
  const SeededGlobalGenerator seeded(mix_seeds(seed, 0));
  Network network = factory(seed);
  if (!network.module || !network.forward) {
    throw InputError("[module_model] expected a module and its forward function, got none");
  }
  for (const auto& item : network.module->named_parameters()) {
    const at::Tensor& param = item.value();
    if (param.scalar_type() != at::kFloat || !param.is_cpu() || !param.requires_grad()) {
      throw InputError("[module_model] expected trainable float32 parameters on the CPU, got \"" +
                       item.key() + "\"");
    }
  }
  network.module->eval();
  if (device != at::kCPU) network.module->to(device);
  return network;
}

/// A network and its parameters, in the order of their names, with places for others.
struct Instance {
  Instance(const NetworkFactory& factory, uint64_t seed, at::Device device = at::kCPU)
      : network(make_network(factory, seed, device)),
        tensors(network.module),
        params(network.module->parameters()) {
    if (params.empty()) {
      throw InputError("[module_model] expected a module with parameters, got none");
    }
  }

  Network network;
  nn::ModuleTensors tensors;  // The parameters stand first.
  std::vector<at::Tensor> params;
};

/// While it lives, the network computes with a member's parameters: views of the stacked ones, with
/// gradients of their own if asked for.
class Member {
 public:
  Member(Instance& instance, at::TensorList stacked, int64_t member, bool with_grads)
      : instance_(instance) {
    TORCH_CHECK(stacked.size() == instance.params.size(), "[module_model] expected ",
                instance.params.size(), " parameters, got ", stacked.size());
    for (size_t i = 0; i < stacked.size(); ++i) {
      params.push_back(
          stacked[i].detach().select(0, member).view(instance.params[i].sizes()).detach());
      params.back().requires_grad_(with_grads);
      instance.tensors.set(i, params.back());
    }
  }
  ~Member() { instance_.tensors.reset(); }
  Member(const Member&) = delete;
  Member& operator=(const Member&) = delete;

  std::vector<at::Tensor> params;

 private:
  Instance& instance_;
};

class ModuleModel : public Model {
 public:
  explicit ModuleModel(NetworkFactory factory) : factory_(std::move(factory)) {
    const auto first = borrow(at::kCPU);
    names_ = first->tensors.names();
    names_.resize(first->params.size());
    metadata_ = nn::module_metadata(*first->network.module);
    for (const auto& item : first->network.module->named_buffers()) {
      buffers_.emplace_back(item.key(), item.value().detach().clone());
    }
    for (const at::Tensor& param : first->params) num_params_ += param.numel();
  }

  std::vector<std::string> param_names() const override { return names_; }

  NamedTensors buffers() const override { return buffers_; }

  std::map<std::string, std::string> metadata() const override { return metadata_; }

  std::vector<at::Tensor> init(uint64_t seed) const override {
    std::vector<at::Tensor> params;
    const Instance instance(factory_, seed);
    for (const at::Tensor& param : instance.params) {
      const at::Tensor value = param.detach();
      params.push_back(value.dim() == 0 ? value.view({1}) : value.contiguous());
    }
    return params;
  }

  int64_t num_params() const override { return num_params_; }

  bool is_batched() const override { return false; }

  at::Tensor forward(at::TensorList params, const at::Tensor& inputs) const override {
    const at::NoGradGuard no_grad;
    const auto instance = borrow(params[0].device());
    std::vector<at::Tensor> outputs;
    for (int64_t p = 0; p < params[0].size(0); ++p) {
      const Member member(*instance, params, p, /*with_grads=*/false);
      outputs.push_back(instance->network.forward(inputs));
    }
    return at::stack(outputs);
  }

  at::Tensor loss(at::TensorList params, const at::Tensor& inputs,
                  const LossFunction& loss) const override;

  /// Losses [P]; with `grads`, which are stacked and zero, the members' gradients too.
  at::Tensor run(at::TensorList params, const at::Tensor& inputs, const LossFunction& loss,
                 std::vector<at::Tensor>* grads) const {
    const auto instance = borrow(params[0].device());
    const at::AutoGradMode grad_mode(grads != nullptr);
    std::vector<at::Tensor> losses;
    for (int64_t p = 0; p < params[0].size(0); ++p) {
      const Member member(*instance, params, p, grads != nullptr);
      const at::Tensor value = loss(instance->network.forward(inputs).unsqueeze(0)).squeeze(0);
      losses.push_back(value.detach());
      if (grads == nullptr) continue;
      const std::vector<at::Tensor> of_member = torch::autograd::grad(
          {value}, member.params, {}, std::nullopt, false, /*allow_unused=*/true);
      for (size_t i = 0; i < of_member.size(); ++i) {
        // A parameter that the loss does not depend on keeps its zero.
        if (of_member[i].defined())
          (*grads)[i].select(0, p).copy_(of_member[i].detach().view_as((*grads)[i].select(0, p)));
      }
    }
    return at::stack(losses);
  }

 private:
  /// Buffers come from the network of this seed, whatever the seed of the parameters.
  static constexpr uint64_t kBufferSeed = 0;

  /// An instance on that device, for one call.
  Pool<Instance>::Loan borrow(at::Device device) const {
    const auto make = [this, device] {
      return std::make_unique<Instance>(factory_, kBufferSeed, device);
    };
    std::unique_lock lock(mutex_);
    Pool<Instance>& there = instances_.try_emplace(device, make).first->second;
    lock.unlock();
    return there.borrow();
  }

  NetworkFactory factory_;
  std::vector<std::string> names_;
  NamedTensors buffers_;
  std::map<std::string, std::string> metadata_;
  int64_t num_params_ = 0;
  mutable std::mutex mutex_;
  mutable std::unordered_map<at::Device, Pool<Instance>> instances_;
};

/// Losses of all members, whose gradients are made together with them.
class MemberLosses : public torch::autograd::Function<MemberLosses> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, at::TensorList params,
                            const ModuleModel* model, const at::Tensor* inputs,
                            const Model::LossFunction* loss) {
    std::vector<at::Tensor> grads;
    for (const at::Tensor& param : params) grads.push_back(at::zeros_like(param));
    at::Tensor losses = model->run(params, *inputs, *loss, &grads);
    context->save_for_backward(std::move(grads));
    return losses;
  }

  static std::vector<at::Tensor> backward(torch::autograd::AutogradContext* context,
                                          const std::vector<at::Tensor>& outer) {
    std::vector<at::Tensor> grads;
    for (const at::Tensor& grad : context->get_saved_variables()) {
      std::vector<int64_t> shape(static_cast<size_t>(grad.dim()), 1);
      shape[0] = grad.size(0);
      grads.push_back(at::mul(grad, outer[0].reshape(shape)));
    }
    grads.resize(grads.size() + 3);  // model, inputs and loss function have none
    return grads;
  }
};

at::Tensor ModuleModel::loss(at::TensorList params, const at::Tensor& inputs,
                             const LossFunction& loss) const {
  bool needs_grad = false;
  for (const at::Tensor& param : params) needs_grad |= param.requires_grad();
  if (!needs_grad || !at::GradMode::is_enabled()) return run(params, inputs, loss, nullptr);
  return MemberLosses::apply(params, this, &inputs, &loss);
}

}  // namespace

std::shared_ptr<const Model> make_module_model(NetworkFactory factory) {
  return std::make_shared<ModuleModel>(std::move(factory));
}

}  // namespace mnemosyne::tasks
