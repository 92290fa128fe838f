#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "mnemosyne/nn/position/fourier_position.h"
#include "mnemosyne/ops/feature_map.h"

namespace mnemosyne::nn {

/// Tokens of a grid, of which each sees all others (or, on a line and causal, earlier ones).
struct FftAttentionInputs {
  at::Tensor query{}, key{}, value{};  ///< [B,H,L,d], [B,Hk,L,d] and [B,Hk,L,d]
  at::Tensor key_padding_mask{};       ///< bool [B,L] or undefined.
  at::Tensor omega{};                  ///< Of the map, where it has random vectors.
  ops::FeatureMapKind feature_map{};
  bool causal = false;
  int64_t columns = 0;  ///< See grid_offsets.h.
};

/// Linear attention [B,H,L,d] with the exact factor of `position` by fast Fourier transforms; up to
/// `kLargestMatrix` tokens by the matrix of the mask, which is the same and faster.
at::Tensor fft_attention(const FftAttentionInputs& in, const FourierPosition& position);

/// Up to here the L x S matrix of a mask is small.
inline constexpr int64_t kLargestMatrix = 256;

}  // namespace mnemosyne::nn
