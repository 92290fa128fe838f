#pragma once

#include <array>

#include "mnemosyne/ops/linear_attention/linear_attention.h"

namespace mnemosyne::ops {

/// What the kernel's forward pass leaves for the backward pass; float32 but for the output, which
/// has the dtype of the query.
struct LinearAttentionSaved {
  LinearAttentionResult result;
  at::Tensor inverse;  ///< [B,H,L]: one over the floored denominators.
};

/// Gradients of what comes out; any may be undefined.
struct LinearAttentionGradients {
  at::Tensor output;
  at::Tensor sums;
  at::Tensor normalizer;
};

/// Positions of the tensors that have gradients in a list of them.
enum LinearAttentionArgument {
  kQuery,
  kKey,
  kValue,
  kQueryFactor,
  kKeyFactor,
  kLogDecay,
  kQueryLog,
  kKeyLog,
  kStateSums,
  kStateNormalizer,
  kNumDifferentiable
};

/// The kernels: forward, and all gradients in the dtypes of their tensors (undefined where the
/// tensor is). For checked inputs for which `linear_attention_is_fused`.
LinearAttentionSaved linear_attention_fused(const LinearAttentionInputs& inputs,
                                            const LinearAttentionOptions& options);

std::array<at::Tensor, kNumDifferentiable> linear_attention_fused_backward(
    const LinearAttentionInputs& inputs, const LinearAttentionOptions& options,
    const LinearAttentionSaved& saved, const LinearAttentionGradients& grads);

}  // namespace mnemosyne::ops
