#include "mnemosyne/ops/feature_map.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/elu.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/ops/device_check.h"

namespace mnemosyne::ops {
namespace {

constexpr double kReluOffset = 1e-3;

/// In a program that is traced, elu by its parts: torch promises other strides for the gradient of
/// at::elu than it has when the program runs.
at::Tensor elu_of(const at::Tensor& x) {
  return is_traced(x) ? at::where(x > 0, x, x.clamp_max(0).expm1()) : at::elu(x);
}

/// [..., D] -> [..., 1].
std::vector<int64_t> shape_of_one(const at::Tensor& x) {
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = 1;
  return shape;
}

/// Features scale factors e^{exponents}; factors that are one and exponents that are zero are
/// undefined, and where there are no exponents the scale is in the factors.
struct Parts {
  at::Tensor factors;
  at::Tensor exponents;
  double scale = 1.0;
};

Parts parts_of(FeatureMapKind kind, const at::Tensor& x, const at::Tensor& omega) {
  if (kind == FeatureMapKind::kConstant) {
    return {at::ones(shape_of_one(x), x.options().requires_grad(false)), {}};
  }
  if (kind == FeatureMapKind::kElu) return {elu_of(x) + 1, {}};
  TORCH_CHECK(omega.defined() && omega.dim() == 2 && omega.size(1) == x.size(-1),
              "[feature_map] expected omega of shape [M, ", x.size(-1), "], got ",
              omega.defined() ? omega.sizes() : at::IntArrayRef{});
  const double scale = 1.0 / std::sqrt(static_cast<double>(omega.size(0)));
  const at::Tensor projection = at::matmul(x, omega.t());  // [..., M]
  const at::Tensor half_norm = x.square().sum(-1, /*keepdim=*/true) * 0.5;
  switch (kind) {
    case FeatureMapKind::kFavorPlus:
      return {{}, projection - half_norm, scale};
    case FeatureMapKind::kHypPlus:
      return {{},
              at::cat({projection - half_norm, -projection - half_norm}, -1),
              scale * std::sqrt(0.5)};
    case FeatureMapKind::kTrig:
      return {at::cat({projection.cos(), projection.sin()}, -1), half_norm, scale};
    case FeatureMapKind::kRelu:
    case FeatureMapKind::kConstant:
    case FeatureMapKind::kElu:
      break;
  }
  return {at::relu(projection) * scale + kReluOffset, {}};
}

}  // namespace

static_assert([] {
  for (size_t i = 0; i < std::size(kFeatureMaps); ++i) {
    if (static_cast<size_t>(kFeatureMaps[i].kind) != i) return false;
  }
  return true;
}());

std::vector<std::string> feature_map_names(FeatureMapKind but) {
  std::vector<std::string> names;
  for (const FeatureMapTraits& map : kFeatureMaps) {
    if (map.kind != but) names.emplace_back(map.name);
  }
  return names;
}

FeatureMapKind feature_map_kind(const std::string& where, const std::string& name,
                                FeatureMapKind but) {
  for (const FeatureMapTraits& map : kFeatureMaps) {
    if (map.kind != but && map.name == name) return map.kind;
  }
  refuse_choice(where, name, feature_map_names(but));
}

int64_t num_features(FeatureMapKind kind, int64_t num_omegas) {
  if (kind == FeatureMapKind::kConstant) return 1;
  return num_omegas * std::max<int64_t>(traits_of(kind).per_vector, 1);
}

at::Tensor feature_map(FeatureMapKind kind, const at::Tensor& x, const at::Tensor& omega) {
  const Parts parts = parts_of(kind, x, omega);
  if (!parts.exponents.defined()) return parts.factors;
  const at::Tensor exponentials = parts.exponents.exp();
  return parts.factors.defined() ? parts.factors * (exponentials * parts.scale)
                                 : exponentials * parts.scale;
}

ScaledFeatures scaled_feature_map(FeatureMapKind kind, const at::Tensor& x,
                                  const at::Tensor& omega) {
  const Parts parts = parts_of(kind, x, omega);
  if (!parts.exponents.defined()) {
    return {parts.factors, at::zeros(shape_of_one(x), x.options().requires_grad(false))};
  }
  const at::Tensor largest = parts.exponents.detach().amax(-1, /*keepdim=*/true);
  const at::Tensor below = (parts.exponents - largest).exp();
  return {parts.factors.defined() ? parts.factors * below : below, largest + std::log(parts.scale)};
}

}  // namespace mnemosyne::ops
