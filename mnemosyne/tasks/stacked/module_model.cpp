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

#include <algorithm>
#include <iterator>
#include <mutex>
#include <utility>

#include "mnemosyne/core/error.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/nn/module_metadata.h"

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

/// A network and handles of its parameters, in the order of their names.
struct Instance {
  Network network;
  std::vector<std::string> names;
  std::vector<at::Tensor> params;
};

Instance build(const NetworkFactory& factory, uint64_t seed, at::Device device = at::kCPU) {
  const SeededGlobalGenerator seeded(mix_seeds(seed, 0));
  Instance instance{.network = factory(seed), .names = {}, .params = {}};
  if (!instance.network.module || !instance.network.forward) {
    throw InputError("[module_model] expected a module and its forward function, got none");
  }
  instance.network.module->eval();
  for (const auto& item : instance.network.module->named_parameters()) {
    const at::Tensor& param = item.value();
    if (param.scalar_type() != at::kFloat || !param.is_cpu() || !param.requires_grad()) {
      throw InputError("[module_model] expected trainable float32 parameters on the CPU, got \"" +
                       item.key() + "\"");
    }
    instance.names.push_back(item.key());
    instance.params.push_back(param);
  }
  if (instance.params.empty()) {
    throw InputError("[module_model] expected a module with parameters, got none");
  }
  if (device != at::kCPU) instance.network.module->to(device);
  return instance;
}

class ModuleModel : public Model {
 public:
  explicit ModuleModel(NetworkFactory factory) : factory_(std::move(factory)) {
    Instance first = build(factory_, kBufferSeed);
    names_ = first.names;
    metadata_ = nn::module_metadata(*first.network.module);
    for (const auto& item : first.network.module->named_buffers()) {
      buffers_.emplace_back(item.key(), item.value().detach().clone());
    }
    for (const at::Tensor& param : first.params) num_params_ += param.numel();
    idle_.push_back(std::make_unique<Instance>(std::move(first)));
  }

  std::vector<std::string> param_names() const override { return names_; }

  NamedTensors buffers() const override { return buffers_; }

  std::map<std::string, std::string> metadata() const override { return metadata_; }

  std::vector<at::Tensor> init(uint64_t seed) const override {
    std::vector<at::Tensor> params;
    for (const at::Tensor& param : build(factory_, seed).params) {
      const at::Tensor value = param.detach();
      params.push_back(value.dim() == 0 ? value.view({1}) : value.contiguous());
    }
    return params;
  }

  int64_t num_params() const override { return num_params_; }

  bool is_batched() const override { return false; }

  at::Tensor forward(at::TensorList params, const at::Tensor& inputs) const override {
    const at::NoGradGuard no_grad;
    const Borrowed instance(*this, params[0].device());
    std::vector<at::Tensor> outputs;
    for (int64_t p = 0; p < params[0].size(0); ++p) {
      bind(*instance, params, p);
      outputs.push_back(instance->network.forward(inputs));
    }
    return at::stack(outputs);
  }

  at::Tensor loss(at::TensorList params, const at::Tensor& inputs,
                  const LossFunction& loss) const override;

  /// Losses [P]; with `grads`, which are stacked and zero, the members' gradients too.
  at::Tensor run(at::TensorList params, const at::Tensor& inputs, const LossFunction& loss,
                 std::vector<at::Tensor>* grads) const {
    const Borrowed instance(*this, params[0].device());
    const at::AutoGradMode grad_mode(grads != nullptr);
    std::vector<at::Tensor> losses;
    for (int64_t p = 0; p < params[0].size(0); ++p) {
      bind(*instance, params, p);
      const at::Tensor value = loss(instance->network.forward(inputs).unsqueeze(0)).squeeze(0);
      losses.push_back(value.detach());
      if (grads == nullptr) continue;
      const std::vector<at::Tensor> of_member = torch::autograd::grad(
          {value}, instance->params, {}, std::nullopt, false, /*allow_unused=*/true);
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

  /// An instance for one call: one that is idle, or a new one.
  class Borrowed {
   public:
    Borrowed(const ModuleModel& model, at::Device device) : model_(model) {
      {
        const std::lock_guard<std::mutex> lock(model_.mutex_);
        auto& idle = model_.idle_;
        const auto found = std::find_if(idle.rbegin(), idle.rend(), [&](const auto& instance) {
          return instance->params[0].device() == device;
        });
        if (found != idle.rend()) {
          instance_ = std::move(*found);
          idle.erase(std::next(found).base());
        }
      }
      if (!instance_) {
        instance_ = std::make_unique<Instance>(build(model_.factory_, kBufferSeed, device));
      }
    }
    ~Borrowed() {
      const std::lock_guard<std::mutex> lock(model_.mutex_);
      model_.idle_.push_back(std::move(instance_));
    }
    Borrowed(const Borrowed&) = delete;
    Borrowed& operator=(const Borrowed&) = delete;

    Instance& operator*() const { return *instance_; }
    Instance* operator->() const { return instance_.get(); }

   private:
    const ModuleModel& model_;
    std::unique_ptr<Instance> instance_;
  };

  static void bind(Instance& instance, at::TensorList params, int64_t member) {
    TORCH_CHECK(params.size() == instance.params.size(), "[module_model] expected ",
                instance.params.size(), " parameters, got ", params.size());
    for (size_t i = 0; i < params.size(); ++i) {
      at::Tensor& param = instance.params[i];
      param.set_data(params[i].detach().select(0, member).view(param.sizes()));
    }
  }

  NetworkFactory factory_;
  std::vector<std::string> names_;
  NamedTensors buffers_;
  std::map<std::string, std::string> metadata_;
  int64_t num_params_ = 0;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Instance>> idle_;
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
