#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "mnemosyne/ops/linear_attention/linear_attention.h"

namespace mnemosyne::nn {

/// What causal attention remembers between segments and in decoding: a constant size.
struct LinearAttentionMemory {
  ops::LinearAttentionState sums{};
  /// [1] or [B,1], float64: the last position that counted, of DampedPosition; minus infinity in
  /// rows without one.
  at::Tensor last{};
  int64_t length = 0;  ///< Tokens so far, where default positions go on.
  at::Tensor
      span{};  ///< [2,P] or [B,2,P], float64: where keys were, of FourierPosition (`span_of`).
};

}  // namespace mnemosyne::nn
