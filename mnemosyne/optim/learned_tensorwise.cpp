#include "mnemosyne/optim/learned_tensorwise.h"

#include <utility>

#include "mnemosyne/optim/finite_streams.h"
#include "mnemosyne/optim/plan_cache.h"

namespace mnemosyne::optim {
namespace {

/// What a plan was made for.
struct PlanKey {
  std::vector<std::vector<int64_t>> shapes;
  at::Device device;
};

}  // namespace

struct LearnedTensorwise::Plans : PlanCache<PlanKey, TensorwisePlan> {};

LearnedTensorwise::LearnedTensorwise(const TensorwiseNetworkOptions& options)
    : options_(options),
      module_(options, static_cast<int64_t>(coordinate_token_names().size()), num_tensor_tokens()),
      functional_(std::make_shared<const nn::FunctionalModule>(module_.ptr())),
      plans_(std::make_shared<Plans>()) {
  std::vector<std::string> names;
  for (const auto& parameter : module_->named_parameters()) {
    names.push_back(parameter.key());
    weights_.emplace_back(parameter.key(), parameter.value().detach().clone());
  }
  for (const auto& buffer : module_->named_buffers()) names.push_back(buffer.key());
  places_ = functional_->places(names);
}

LearnedTensorwise LearnedTensorwise::with_weights(const std::string& rule,
                                                  const NamedTensors& weights) const {
  LearnedTensorwise result = *this;
  result.weights_ = matching(rule, weights_, weights);
  return result;
}

WeightAxes LearnedTensorwise::axes() const {
  return {{"encoder.embed.weight", {{}, coordinate_token_names()}},
          {"from_features.weight", {{}, coordinate_token_names()}}};
}

std::shared_ptr<const TensorwisePlan> LearnedTensorwise::plan(at::TensorList params,
                                                              at::Device device) const {
  std::vector<std::vector<int64_t>> shapes;
  for (const at::Tensor& param : params) shapes.push_back(param.sizes().vec());
  const auto make = [&] {
    TensorwisePlan plan{.places = CoordinatePlaces(params, device)};
    nn::TokenPlaces places{.counts = plan.places.counts};
    if (options_.position != "none") places.positions = coordinate_positions(params);
    plan.encoder = module_->encoder->plan(places, device);
    return std::pair(PlanKey{shapes, device},
                     std::make_shared<const TensorwisePlan>(std::move(plan)));
  };
  return plans_->get(
      [&](const PlanKey& key) { return key.device == device && key.shapes == shapes; }, make);
}

at::Tensor LearnedTensorwise::operator()(const TensorwisePlan& plan, const at::Tensor& tokens,
                                         const at::Tensor& tensors, at::Tensor& memory) const {
  std::vector<at::Tensor> values;
  for (const auto& [name, weight] : weights_) values.push_back(weight.to(tokens.options()));
  for (const at::Tensor& x : module_->buffers()) values.push_back(x.to(tokens.options()));
  if (memory.defined()) memory = finite_streams(memory);
  return functional_->call(places_, values, [&](torch::nn::Module& module) {
    return module.as<TensorwiseNetworkImpl>()->forward(tokens, tensors, plan.encoder, memory);
  });
}

}  // namespace mnemosyne::optim
