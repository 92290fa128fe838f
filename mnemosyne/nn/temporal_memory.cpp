#include "mnemosyne/nn/temporal_memory.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/copy_module.h"

namespace mnemosyne::nn {
namespace {

constexpr uint64_t kAddressSeed = 0, kValueSeed = 2, kOutputSeed = 3, kOmegaSeed = 4;

/// Of queries and keys at the start: |q| = |k| = .7, where hyperbolic features of a few random
/// vectors are exact to some percent (docs/theory.md).
constexpr double kTemperature = 0.49;

void validate(const TemporalMemoryOptions& o) {
  if (o.width < 1 || o.key_dim < 1 || o.value_dim < 1) {
    throw InputError("[temporal_memory] expected positive width, key_dim and value_dim, got " +
                     std::to_string(o.width) + ", " + std::to_string(o.key_dim) + " and " +
                     std::to_string(o.value_dim));
  }
  const auto is_discount = [](double x) { return x > 0.0 && x < 1.0; };
  if (o.discounts.empty() || !std::all_of(o.discounts.begin(), o.discounts.end(), is_discount)) {
    throw InputError("[temporal_memory] expected discounts in (0, 1), at least one");
  }
}

}  // namespace

void bind(Fields& visit, TemporalMemoryOptions& o) {
  visit("width", o.width);
  visit("key_dim", o.key_dim);
  visit("value_dim", o.value_dim);
  visit("feature_map", o.feature_map);
  visit("num_features", o.num_features);
  visit("discounts", o.discounts);
  visit("seed", o.seed);
}

TemporalMemoryImpl::TemporalMemoryImpl(const TemporalMemoryOptions& options)
    : torch::nn::Module("TemporalMemory"),
      options_(with_seed(options)),
      kind_(feature_map_kind(options.feature_map)) {
  validate(options);
  const auto projection = [&](const char* name, int64_t inputs, int64_t outputs, uint64_t seed) {
    return register_module(
        name, Dense(inputs, outputs, /*with_bias=*/false, part_seed(*options_.seed, seed)));
  };
  norm = register_module("norm", Norm(options.width));
  address = projection("address", options.width, 2 * heads() * options.key_dim, kAddressSeed);
  value = projection("value", options.width, heads() * options.value_dim, kValueSeed);
  output = projection("output", heads() * options.value_dim, options.width, kOutputSeed);
  const at::Tensor discounts = at::tensor(options.discounts, at::kDouble);
  discount_logit = register_parameter("discount_logit", discounts.logit().to(at::kFloat));
  log_temperature = register_parameter("log_temperature",
                                       at::full({heads()}, std::log(kTemperature), at::kFloat));
  const int64_t count = num_omegas(kind_, options.num_features);
  if (count > 0) {
    omega = register_buffer(
        "omega",
        draw_omega(count, options.key_dim, part_seed(*options_.seed, kOmegaSeed)).to(at::kFloat));
  }
}

AssociativeMemory TemporalMemoryImpl::memory() const {
  return AssociativeMemory(FeatureMap(kind_, omega));
}

int64_t TemporalMemoryImpl::state_size() const {
  return heads() * (options_.num_features * (options_.value_dim + 1) + 1);
}

at::Tensor TemporalMemoryImpl::init(int64_t streams, const at::TensorOptions& options) const {
  return at::zeros({streams, state_size()}, options);
}

at::Tensor TemporalMemoryImpl::addresses(const at::Tensor& tokens) const {
  const at::Tensor all =
      address->forward(tokens).view({tokens.size(0), 2, heads(), options_.key_dim});
  const at::Tensor length = all.square().sum(-1, /*keepdim=*/true) + 1e-12;
  return all * ((0.5 * log_temperature.view({1, -1, 1})).exp() * length.rsqrt());
}

at::Tensor TemporalMemoryImpl::forward(const at::Tensor& x, at::Tensor& state) const {
  TORCH_CHECK(x.dim() == 2 && x.size(1) == options_.width && state.dim() == 2 &&
                  state.size(0) == x.size(0) && state.size(1) == state_size(),
              "[temporal_memory] expected x [B,", options_.width, "] and its state [B,",
              state_size(), "], got ", x.sizes(), " and ", state.sizes());
  const int64_t streams = x.size(0), features = options_.num_features, values = options_.value_dim;
  const std::vector<at::Tensor> held =
      state.split_with_sizes({heads() * features * values, heads() * features, heads()}, /*dim=*/1);
  const AssociativeMemory memory = this->memory();
  const at::Tensor tokens = norm->forward(x);
  const ops::ScaledFeatures phi = memory.feature_map().scaled(addresses(tokens));
  const AssociativeState next = memory.write_features(
      {held[0].view({streams, heads(), features, values}),
       held[1].view({streams, heads(), features}), held[2]},
      {phi.features.select(1, 1), phi.log_scale.select(1, 1)},
      value->forward(tokens).view({streams, heads(), values}), at::sigmoid(discount_logit));
  state = at::cat({next.sums.flatten(1), next.normaliser.flatten(1), next.log_scale}, 1);
  return x + output->forward(memory.read_features(next, phi.features.select(1, 0)).flatten(1));
}

std::shared_ptr<torch::nn::Module> TemporalMemoryImpl::clone(
    const std::optional<at::Device>& device) const {
  const auto copy = std::make_shared<TemporalMemoryImpl>(options_);
  copy_module(*this, *copy, device);
  return copy;
}

}  // namespace mnemosyne::nn
