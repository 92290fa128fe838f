#include "mnemosyne/optim/learned_tensorwise.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/where.h>

#include <deque>
#include <limits>
#include <mutex>
#include <utility>

namespace mnemosyne::optim {
namespace {

constexpr size_t kPlansKept = 4;  // an optimizer has one, threads of a comparison one each

/// A memory [M,S] in which streams that are not finite begin anew.
at::Tensor sound(const at::Tensor& memory) {
  const at::Tensor finite =
      memory.abs().sum(1, /*keepdim=*/true) < std::numeric_limits<double>::infinity();
  return at::where(finite, memory, 0.0);
}

}  // namespace

struct LearnedTensorwise::Plans {
  struct Entry {
    std::vector<std::vector<int64_t>> shapes;
    at::Device device;
    std::shared_ptr<const TensorwisePlan> plan;
  };

  std::mutex mutex;
  std::deque<Entry> entries;
};

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
  const std::lock_guard lock(plans_->mutex);
  for (const Plans::Entry& entry : plans_->entries) {
    if (entry.device == device && entry.shapes == shapes) return entry.plan;
  }
  auto made = std::make_shared<TensorwisePlan>();
  made->places = CoordinatePlaces(params, device);
  nn::TokenPlaces places{.counts = made->places.counts};
  if (options_.position != "none") places.positions = coordinate_positions(params);
  made->encoder = module_->encoder->plan(places, device);
  plans_->entries.push_front({std::move(shapes), device, made});
  if (plans_->entries.size() > kPlansKept) plans_->entries.pop_back();
  return made;
}

at::Tensor LearnedTensorwise::operator()(const TensorwisePlan& plan, const at::Tensor& tokens,
                                         const at::Tensor& tensors, at::Tensor& memory) const {
  std::vector<at::Tensor> values;
  for (const auto& [name, weight] : weights_) values.push_back(weight.to(tokens.options()));
  for (const at::Tensor& x : module_->buffers()) values.push_back(x.to(tokens.options()));
  if (memory.defined()) memory = sound(memory);
  return functional_->call(places_, values, [&](torch::nn::Module& module) {
    return module.as<TensorwiseNetworkImpl>()->forward(tokens, tensors, plan.encoder, memory);
  });
}

}  // namespace mnemosyne::optim
