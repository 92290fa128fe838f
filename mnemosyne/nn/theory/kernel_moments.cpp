#include "mnemosyne/nn/theory/kernel_moments.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/expm1.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/relu.h>

#include "mnemosyne/core/choices.h"

namespace mnemosyne::nn {
using ops::FeatureMapKind;

namespace {

void check_estimates(FeatureMapKind kind) {
  const ops::FeatureMapTraits& traits = ops::traits_of(kind);
  if (!traits.estimates) {
    refuse("kernel_moments", "a feature map that estimates exp(x.y)", in_quotes(traits.name));
  }
}

at::Tensor squared_length(const at::Tensor& x) { return x.square().sum(-1); }

}  // namespace

at::Tensor estimate_variance(FeatureMapKind kind, const at::Tensor& x, const at::Tensor& y) {
  check_estimates(kind);
  const at::Tensor s = squared_length(x + y);
  const at::Tensor squared_kernel = at::exp(2 * (x * y).sum(-1));
  const at::Tensor missing = -at::expm1(-s);  // 1 - e^-s
  if (kind == FeatureMapKind::kFavorPlus) return at::exp(s) * squared_kernel * missing;
  if (kind == FeatureMapKind::kHypPlus) {
    return at::exp(s) * squared_kernel * missing.square() / 2;
  }
  return at::exp(s) / squared_kernel * at::expm1(-squared_length(x - y)).square() / 2;
}

at::Tensor estimate_moments(FeatureMapKind kind, const at::Tensor& x, const at::Tensor& y) {
  check_estimates(kind);
  const bool trig = kind == FeatureMapKind::kTrig;
  const at::Tensor u = trig ? x - y : x + y;
  const at::Tensor length = squared_length(u);
  const at::Tensor lengths = length.unsqueeze(-1) + length.unsqueeze(-2);
  const at::Tensor product = 2 * at::matmul(u, u.transpose(-1, -2));
  const at::Tensor offset = squared_length(x) + squared_length(y);
  const at::Tensor offsets = offset.unsqueeze(-1) + offset.unsqueeze(-2);
  // Exponents are added before exp: each alone overflows where their sum does not.
  const double sign = trig ? -0.5 : 0.5;
  const at::Tensor plus = at::exp(sign * (lengths + product - offsets));
  if (kind == FeatureMapKind::kFavorPlus) return plus;
  return (plus + at::exp(sign * (lengths - product - offsets))) / 2;
}

SumOfEstimates sum_of_estimates(FeatureMapKind kind, const at::Tensor& a, const at::Tensor& x,
                                const at::Tensor& y) {
  const at::Tensor mean = at::matmul(a, (x * y).sum(-1).exp().unsqueeze(-1)).squeeze(-1);
  const at::Tensor second = (at::matmul(a, estimate_moments(kind, x, y)) * a).sum(-1);
  // Not below zero by rounding, where an estimate is exact.
  return {mean, at::relu(second - mean.square())};
}

}  // namespace mnemosyne::nn
