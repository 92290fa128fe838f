#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

namespace mnemosyne::ops {

/// A function of the offset z in R^D as a finite sum of waves, one per head:
///
///     f(z) = sum_r cosine_r cos(2 pi xi_r.z) + sine_r sin(2 pi xi_r.z)
///
/// H = heads, R = frequencies, D = dimension of positions. Without `sine` f is even. A phase a of a
/// wave of amplitude c is cosine = c cos a, sine = -c sin a.
struct SpectralSum {
  at::Tensor frequencies;  ///< xi, [H, R, D] or [1, R, D], in cycles per unit of position.
  at::Tensor cosine;       ///< [H, R].
  at::Tensor sine;         ///< [H, R], or undefined: zero.
  /// [H, R], or undefined. When given, cosine is its square, and the features of both sides are
  /// scaled by it, sign and all, instead of by the split below.
  at::Tensor amplitude;
};

/// Features of queries and keys whose inner product is a function of the offset of their positions.
///
/// Without `decay`: f(x - y) = sum_n query(x)_n key(y)_n. With it, for x >= y only:
/// f(x - y) = sum_n query(x)_n key(y)_n exp(-decay_n (x - y)), so that both stay bounded however
/// long the sequence is.
struct PositionFeatures {
  at::Tensor query;  ///< [H, L, N] or [B, H, L, N].
  at::Tensor key;    ///< The same shape.
  at::Tensor decay;  ///< [H, N], per unit of position, or undefined.
};

/// The two factors b and c / b of a weight c, b = (c^2 + s^2 + delta^2)^(1/4), where s is a second
/// weight that shares b, or undefined. Both are about sqrt(|c|), their product is exactly c, and
/// its gradient at c = 0 is finite and not zero.
std::pair<at::Tensor, at::Tensor> split_weight(const at::Tensor& weight,
                                               const at::Tensor& other = {});

/// f at offsets [..., D]: [H, ...]. Differentiable in all tensors of the sum.
at::Tensor fourier_sum(const SpectralSum& sum, const at::Tensor& offsets);

/// Features with query(x).key(y) = f(x - y), N = 2R: all cosines, then all sines.
///
/// `positions` [L, D] or [B, L, D]. Weights are divided between both sides by `split_weight`.
/// Angles are reduced to one turn in float64, so that long sequences lose nothing.
///
///     auto [query, key, decay] = ops::fourier_features({xi, weights}, positions);
///     at::Tensor f = at::matmul(query, key.mT());              // [H, L, L]
PositionFeatures fourier_features(const SpectralSum& sum, const at::Tensor& positions);

/// From features of f to features of 1 + f: one more, constant. Signed, rank 2R + 1.
PositionFeatures linear_factor_features(const PositionFeatures& features);

/// From features of f to features of (1 + f)^2: (N + 1)(N + 2) / 2 pairs. Never negative.
PositionFeatures square_factor_features(const PositionFeatures& features);

/// From features of h to features of h for two tokens with a position and 1 for every other pair:
/// two more, both non-negative. `has_position` is bool, [L] or [B, L].
PositionFeatures with_unplaced_tokens(const PositionFeatures& features,
                                      const at::Tensor& has_position);

/// x_t - x_{t-1} of tokens in order, [..., L]; c10::Error where positions [..., L] go down along a
/// row. The first token counts from `previous` [..., 1], the last position of an earlier segment;
/// undefined, or minus infinity in a row: from itself.
at::Tensor line_gaps(const at::Tensor& positions, const at::Tensor& previous = {});

/// How far features fade from each token to the next, for `LinearAttentionInputs::log_decay`:
/// -decay (x_t - x_{t-1}), [..., H, L, N], with `decay` [H, N] and the rest as in `line_gaps`.
at::Tensor log_decay(const at::Tensor& decay, const at::Tensor& positions,
                     const at::Tensor& previous = {});

}  // namespace mnemosyne::ops
