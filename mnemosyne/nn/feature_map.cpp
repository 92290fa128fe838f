#include "mnemosyne/nn/feature_map.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/randn.h>

#include <string>

#include "mnemosyne/core/error.h"
#include "mnemosyne/core/random.h"

namespace mnemosyne::nn {
using ops::FeatureMapKind;

std::vector<std::string> feature_map_names() {
  return ops::feature_map_names(FeatureMapKind::kElu);
}

FeatureMapKind feature_map_kind(const std::string& name) {
  return ops::feature_map_kind("feature_map", name, FeatureMapKind::kElu);
}

int64_t num_omegas(FeatureMapKind kind, int64_t num_features) {
  const int64_t per_vector = ops::traits_of(kind).per_vector;
  const bool constant = kind == FeatureMapKind::kConstant;
  const bool fits = constant ? num_features == 1 : num_features > 0;
  if (!fits || (per_vector > 1 && num_features % per_vector != 0)) {
    throw InputError(
        std::string("[num_features] expected ") +
        (constant ? "1" : (per_vector > 1 ? "an even positive number" : "a positive number")) +
        " for this feature map, got " + std::to_string(num_features));
  }
  return per_vector > 0 ? num_features / per_vector : 0;
}

at::Tensor draw_omega(int64_t count, int64_t dim, uint64_t seed) {
  if (count < 1 || dim < 1) {
    throw InputError("[omega] expected at least one vector of at least one dimension, got " +
                     std::to_string(count) + " of " + std::to_string(dim));
  }
  const at::NoGradGuard no_grad;
  const at::Generator generator = tensor_generator(seed);
  const at::TensorOptions options = at::TensorOptions(at::kDouble);
  std::vector<at::Tensor> blocks;
  for (int64_t rows = 0; rows < count; rows += dim) {
    auto [q, r] = at::linalg_qr(at::randn({dim, dim}, generator, options));
    // Without the signs of R's diagonal the orthogonal factor is not uniformly distributed.
    blocks.push_back(q * r.diagonal().sign());
  }
  const at::Tensor lengths =
      at::randn({count, dim}, generator, options).norm(2, {1}, /*keepdim=*/true);
  return at::cat(blocks).narrow(0, 0, count) * lengths;
}

FeatureMap::FeatureMap(const FeatureMapOptions& options) : kind_(feature_map_kind(options.name)) {
  if (options.dim < 1) {
    throw InputError("[dim] expected a positive number, got " + std::to_string(options.dim));
  }
  const int64_t count = num_omegas(kind_, options.num_features);
  if (count > 0) omega_ = draw_omega(count, options.dim, options.seed);
}

FeatureMap::FeatureMap(FeatureMapKind kind, at::Tensor omega)
    : kind_(kind), omega_(std::move(omega)) {}

at::Tensor FeatureMap::operator()(const at::Tensor& x) const {
  return ops::feature_map(kind_, x, omega_.defined() ? omega_.to(x.options()) : omega_);
}

ops::ScaledFeatures FeatureMap::scaled(const at::Tensor& x) const {
  return ops::scaled_feature_map(kind_, x, omega_.defined() ? omega_.to(x.options()) : omega_);
}

int64_t FeatureMap::num_features() const {
  return ops::num_features(kind_, omega_.defined() ? omega_.size(0) : 0);
}

}  // namespace mnemosyne::nn
