#include "mnemosyne/optim/learned_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <utility>

#include "mnemosyne/nn/vmap.h"
#include "mnemosyne/optim/finite_streams.h"
#include "mnemosyne/optim/plan_cache.h"
#include "mnemosyne/optim/step_features.h"
#include "mnemosyne/optim/step_outputs.h"

namespace mnemosyne::optim {
namespace {

constexpr char kRule[] = "mnemosyne";
constexpr char kPrefix[] = "attention.";

/// Tensors of one of the networks that `each` goes through: weights are theirs, buffers common.
std::vector<at::Tensor> tensors_of_one(const nn::Vmap& each, const AttentionPlan& plan,
                                       size_t num_weights) {
  std::vector<at::Tensor> tensors = plan.tensors;
  for (size_t i = 0; i < num_weights; ++i) tensors[i] = each.one_of(tensors[i]);
  return tensors;
}

int64_t length(const std::vector<std::string>& names) { return static_cast<int64_t>(names.size()); }

/// [P N, ...] to [P, N, ...].
at::Tensor by_network(const at::Tensor& values, int64_t networks) {
  return values.unflatten(0, {networks, values.size(0) / networks});
}

/// What a plan was made for.
struct PlanKey {
  std::vector<std::vector<int64_t>> shapes;
  std::vector<at::Tensor> sources;  // weights of all networks
  at::Device device;

  bool fits(at::TensorList params, const std::vector<at::Tensor>& weights, at::Device where) const {
    const auto same_shape = [](const std::vector<int64_t>& shape, const at::Tensor& param) {
      return param.sizes() == shape;
    };
    const auto same = [](const at::Tensor& a, const at::Tensor& b) { return a.is_same(b); };
    return device == where &&
           std::equal(shapes.begin(), shapes.end(), params.begin(), params.end(), same_shape) &&
           std::equal(sources.begin(), sources.end(), weights.begin(), weights.end(), same);
  }
};

}  // namespace

struct LearnedAttention::Plans : PlanCache<PlanKey, AttentionPlan> {};

LearnedAttention::LearnedAttention(const StepAttentionOptions& options, bool aligned)
    : options_(options),
      aligned_(aligned),
      module_(options, length(step_feature_names(aligned)), length(step_output_names()), aligned),
      functional_(std::make_shared<const nn::FunctionalModule>(module_.ptr())),
      plans_(std::make_shared<Plans>()) {
  std::vector<std::string> names;
  for (const auto& parameter : module_->named_parameters()) {
    names.push_back(parameter.key());
    weights_.emplace_back(kPrefix + parameter.key(), parameter.value().detach().clone());
  }
  for (const auto& buffer : module_->named_buffers()) names.push_back(buffer.key());
  places_ = functional_->places(names);
}

LearnedAttention LearnedAttention::with_weights(const NamedTensors& weights) const {
  LearnedAttention result = *this;
  result.weights_ = matching(kRule, weights_, weights);
  result.plans_ = std::make_shared<Plans>();
  return result;
}

void LearnedAttention::add_axes(WeightAxes& axes) const {
  const auto add = [&](const std::string& name, const std::vector<std::vector<std::string>>& own) {
    axes[kPrefix + name] = own;
  };
  add("encoder.embed.weight", {{}, chunk_feature_names(aligned_)});
  add("encoder.embed_tensor.weight", {{}, step_feature_names(aligned_)});
  add("tensor_head.weight", {step_output_names(), {}});
  add("tensor_head.bias", {step_output_names()});
}

std::shared_ptr<const AttentionPlan> LearnedAttention::plan(
    const std::vector<const LearnedAttention*>& networks, at::TensorList params,
    at::Device device) const {
  std::vector<at::Tensor> sources;
  bool constant = true;
  for (const LearnedAttention* network : networks) {
    for (const auto& [name, weight] : network->weights_) {
      constant = constant && !weight.requires_grad();
      sources.push_back(weight);
    }
  }
  // Places are the same whatever the weights.
  if (!constant) sources.clear();
  const auto make = [&] {
    auto made =
        std::make_shared<const AttentionPlan>(make_plan(networks, params, device, constant));
    std::vector<std::vector<int64_t>> shapes;
    for (const at::Tensor& param : params) shapes.push_back(param.sizes().vec());
    return std::pair(PlanKey{std::move(shapes), sources, device}, std::move(made));
  };
  return plans_->get([&](const PlanKey& key) { return key.fits(params, sources, device); }, make);
}

AttentionPlan LearnedAttention::make_plan(const std::vector<const LearnedAttention*>& networks,
                                          at::TensorList params, at::Device device,
                                          bool constant) const {
  AttentionPlan plan;
  plan.networks = static_cast<int64_t>(networks.size());
  plan.geometry = ChunkGeometry(params, options_.chunk_size).on(device);
  const ChunkGeometry own = plan.geometry.part(0, params.size() / networks.size());
  plan.encoder = module_->encoder->plan({.positions = own.positions, .counts = own.counts}, device);
  if (!constant) return plan;
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < weights_.size(); ++i) {
    std::vector<at::Tensor> of_networks;
    for (const LearnedAttention* network : networks) {
      of_networks.push_back(network->weights_[i].second);
    }
    plan.tensors.push_back(
        (networks.size() == 1 ? of_networks[0] : at::stack(of_networks)).to(device));
  }
  for (const at::Tensor& buffer : module_->buffers()) plan.tensors.push_back(buffer.to(device));
  add_factors(plan);
  return plan;
}

void LearnedAttention::add_factors(AttentionPlan& plan) const {
  const auto add = [&](torch::nn::Module& module) {
    module.as<StepAttentionImpl>()->encoder->add_factors(plan.encoder);
  };
  if (plan.networks == 1) return functional_->call(places_, plan.tensors, add);
  const nn::Vmap each(plan.networks);
  functional_->call(places_, tensors_of_one(each, plan, weights_.size()), add);
  for (at::Tensor* factor : plan.encoder.factors()) *factor = each.all_of(*factor);
}

AttendedOutputs LearnedAttention::run_one(const AttentionPlan& plan, const at::Tensor& features,
                                          const at::Tensor& chunks, at::Tensor& memory,
                                          at::Tensor& network_memory) const {
  std::vector<at::Tensor> tensors = plan.tensors;
  if (tensors.empty()) {
    for (const auto& [name, weight] : weights_) tensors.push_back(weight.to(features.device()));
    for (const at::Tensor& x : module_->buffers()) tensors.push_back(x.to(features.device()));
  }
  return functional_->call(places_, tensors, [&](torch::nn::Module& module) {
    return module.as<StepAttentionImpl>()->forward(features, chunks, plan.encoder, memory,
                                                   network_memory);
  });
}

AttendedOutputs LearnedAttention::run_all(const AttentionPlan& plan, const at::Tensor& features,
                                          const at::Tensor& chunks, at::Tensor& memory,
                                          at::Tensor& network_memory) const {
  const nn::Vmap each(plan.networks);
  const auto one = [&](const at::Tensor& all) {
    return all.defined() ? each.one_of(by_network(all, plan.networks)) : all;
  };
  const auto all = [&](const at::Tensor& own) {
    return own.defined() ? each.all_of(own).flatten(0, 1) : own;
  };
  nn::EncoderPlan encoder = plan.encoder;
  for (at::Tensor* factor : encoder.factors()) *factor = each.one_of(*factor);
  at::Tensor own_memory = one(memory), own_network_memory = one(network_memory);
  const AttendedOutputs own = functional_->call(
      places_, tensors_of_one(each, plan, weights_.size()), [&](torch::nn::Module& module) {
        return module.as<StepAttentionImpl>()->forward(one(features), one(chunks), encoder,
                                                       own_memory, own_network_memory);
      });
  memory = all(own_memory);
  network_memory = all(own_network_memory);
  return {.tensors = all(own.tensors), .chunks = all(own.chunks)};
}

AttendedOutputs LearnedAttention::operator()(const AttentionPlan& plan, const at::Tensor& features,
                                             const at::Tensor& chunks, at::Tensor& memory,
                                             at::Tensor& network_memory) const {
  const at::ScalarType dtype = weights_.front().second.scalar_type();
  at::Tensor held = memory, network_held = network_memory;
  if (held.defined()) {
    held = finite_streams(held).to(dtype);
    network_held = finite_streams(network_held).to(dtype);
  }
  const auto run = plan.networks == 1 ? &LearnedAttention::run_one : &LearnedAttention::run_all;
  AttendedOutputs outputs =
      (this->*run)(plan, features.to(dtype), chunks.to(dtype), held, network_held);
  if (memory.defined()) {
    memory = held.to(memory.scalar_type());
    network_memory = network_held.to(network_memory.scalar_type());
  }
  return outputs;
}

}  // namespace mnemosyne::optim
