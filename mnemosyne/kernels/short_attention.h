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

/// Floats of scratch that either pass needs.
constexpr int64_t short_attention_scratch(int64_t tokens, int64_t depth) {
  return (tokens + depth) * padded_row(tokens) + 2 * tokens * padded_row(depth);
}

/// Softmax attention within each example and head, all of a head's matrices in cache.
struct ShortAttentionParams {
  const float* qkv;  ///< [E,T,3,H,D]
  float* weights;    ///< [E,H,T,Tp]: softmax, zero in the padding; written for the backward pass.
  float* output;     ///< [E,T,H,D]
  float* scratch;    ///< short_attention_scratch(T, D) floats.
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
  float* scratch;
  int64_t examples;
  int64_t tokens;
  int64_t heads;
  int64_t depth;
  float scale;
};

}  // namespace mnemosyne::kernels

MN_DECLARE_KERNEL(short_attention, ShortAttentionParams)
MN_DECLARE_KERNEL(short_attention_backward, ShortAttentionBackwardParams)
