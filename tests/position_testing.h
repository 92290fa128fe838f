#pragma once

#include <ATen/ATen.h>

#include "mnemosyne/nn/linear_attention.h"
#include "mnemosyne/nn/position/fourier_position.h"

namespace mnemosyne::testing {

/// A position encoding in float64, of seed 0 unless the options name another.
inline nn::FourierPosition make_position(nn::FourierPositionOptions options) {
  options.seed = options.seed.value_or(0);
  nn::FourierPosition position(options);
  position->to(at::kDouble);
  return position;
}

/// Moves all parameters by normal deviates, so that none is special.
inline void randomise(const torch::nn::Module& module, uint64_t seed, double scale) {
  at::manual_seed(seed);
  const at::NoGradGuard no_grad;
  for (const at::Tensor& parameter : module.parameters())
    parameter.add_(at::randn_like(parameter) * scale);
}

/// Inner products of all queries with all keys, [..., L, L].
inline at::Tensor product(const ops::PositionFeatures& features) {
  return at::matmul(features.query, features.key.mT());
}

/// All offsets x_i - x_j [L, L, D] of positions [L, D].
inline at::Tensor offsets_of(const at::Tensor& positions) {
  return positions.unsqueeze(1) - positions.unsqueeze(0);
}

/// The same with features that fade, for queries not before the key; zero for others.
inline at::Tensor faded_product(const ops::PositionFeatures& features, const at::Tensor& x) {
  const at::Tensor gap = (x - x.transpose(0, 1)).clamp_min(0);  // [L, L]
  const at::Tensor fading = (-features.decay.unsqueeze(1).unsqueeze(1) * gap.unsqueeze(-1)).exp();
  return at::einsum("hin,hjn,hijn->hij", {features.query, features.key, fading}).tril();
}

/// Positions 0, 1, ... of a sequence, [L, 1].
inline at::Tensor line(int64_t length) { return at::arange(length, at::kDouble).unsqueeze(-1); }

/// The position of an attention that has one of this kind.
inline nn::FourierPositionImpl& fourier_of(const nn::LinearAttentionImpl& attention) {
  return *attention.position().module()->as<nn::FourierPosition>();
}

inline nn::DampedPositionImpl& damped_of(const nn::LinearAttentionImpl& attention) {
  return *attention.position().module()->as<nn::DampedPosition>();
}

}  // namespace mnemosyne::testing
