#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

// Between the op, its reference and its kernels. Letters as in short_attention.h.

namespace mnemosyne::ops {

/// What the kernel's forward pass leaves: the output [E*T, H*D], and the weights [E,H,T,Tp], with
/// rows padded, for the backward pass.
struct ShortAttentionSaved {
  at::Tensor output, weights;
};

/// The kernels, for contiguous float32 tensors of the CPU that have been checked.
ShortAttentionSaved short_attention_fused(const at::Tensor& qkv, int64_t tokens, int64_t heads,
                                          bool causal);

/// The gradient of qkv.
at::Tensor short_attention_fused_backward(const at::Tensor& qkv, const at::Tensor& weights,
                                          const at::Tensor& grad_output);

/// Of the scores.
double short_attention_scale(int64_t depth);

/// Refuses shapes that do not fit.
void check_short_attention(const at::Tensor& qkv, int64_t tokens, int64_t heads);

}  // namespace mnemosyne::ops
