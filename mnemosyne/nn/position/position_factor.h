#pragma once

#include <ATen/core/Tensor.h>

namespace mnemosyne::nn {

// B = batch, H = heads, L = queries, S = keys, N = features of a position.

/// A factor of the attention weights, p_i.s_j of rank N, whose parts may fade.
struct PositionFactor {
  at::Tensor query{};      ///< p [H,L,N] or [B,H,L,N].
  at::Tensor key{};        ///< s [H,S,N] or [B,H,S,N].
  at::Tensor log_decay{};  ///< [H,L,N] or [B,H,L,N], or undefined.
};

}  // namespace mnemosyne::nn
