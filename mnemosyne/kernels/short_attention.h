#pragma once

#include <cstdint>

#include "mnemosyne/kernels/dispatch.h"

namespace mnemosyne::kernels {

// E = examples, T = tokens, H = heads, D = features of a head; Tp and Dp are padded to kRowPadding.

/// Rows of scratch and of the attention weights have a multiple of so many floats.
inline constexpr int64_t kRowPadding = 16;

constexpr int64_t padded_row(int64_t size) {
  return (size + kRowPadding - 1) / kRowPadding * kRowPadding;
}

/// Softmax attention within each example and head, all of a head's matrices in cache. Its items are
/// the examples.
struct ShortAttentionParams {
  const float* qkv;  ///< [E,T,3,H,D]
  float* weights;    ///< [E,H,T,Tp]: softmax, zero in the padding; written for the backward pass.
  float* output;     ///< [E,T,H,D]
  int64_t examples;
  int64_t tokens;
  int64_t heads;
  int64_t depth;
  float scale;  ///< Of the scores.
  bool causal;
};

/// Its gradient with respect to qkv.
struct ShortAttentionBackwardParams {
  const float* qkv;
  const float* weights;
  const float* grad_output;  ///< [E,T,H,D]
  float* grad_qkv;           ///< [E,T,3,H,D], all written.
  int64_t examples;
  int64_t tokens;
  int64_t heads;
  int64_t depth;
  float scale;
};

using ShortAttentionSlice = Slice<ShortAttentionParams>;
using ShortAttentionBackwardSlice = Slice<ShortAttentionBackwardParams>;

}  // namespace mnemosyne::kernels

MN_DECLARE_KERNEL(short_attention, ShortAttentionSlice)
MN_DECLARE_KERNEL(short_attention_backward, ShortAttentionBackwardSlice)
MN_DECLARE_SCRATCH(short_attention_scratch, ShortAttentionParams)
MN_DECLARE_SCRATCH(short_attention_backward_scratch, ShortAttentionBackwardParams)
