#pragma once

#include "mnemosyne/ops/memory_step/memory_step.h"

// Between the op and its kernels: raw pointers, spans of coordinates for the threads, and the sums
// over them. Internal to ops/; every argument has been checked by register.cpp.

namespace mnemosyne::ops {

/// Where a fused forward step writes.
struct MemoryStepOutputs {
  std::vector<at::Tensor> memories;  ///< T of [1, H, R, C, N]; may be the inputs'.
  std::vector<at::Tensor> updates;   ///< T of [N], or empty.
  std::vector<at::Tensor> params;    ///< T of [N], or empty; may be the inputs'.
  at::Tensor decay = {};  ///< [T], contiguous, or none: params <- params - (update + decay params).
};

/// Gradients of a fused step. key, query and radius are undefined for the constant feature map.
struct MemoryStepGradients {
  at::Tensor decay, key, query, radius, hidden_weight, output_weight, output_bias;
  at::Tensor hidden_bias;            ///< [T, U]
  at::Tensor step;                   ///< [T]
  std::vector<at::Tensor> memories;  ///< T
};

void fused_forward_cpu(const MemoryStepInputs& inputs, const MemoryStepWeights& weights,
                       const MemoryStepOptions& options, const MemoryStepOutputs& outputs);

void fused_forward_cuda(const MemoryStepInputs& inputs, const MemoryStepWeights& weights,
                        const MemoryStepOptions& options, const MemoryStepOutputs& outputs);

/// Gradients for `grad_updates` and `grad_memories`, T each; entries may be undefined, which is
/// zero.
MemoryStepGradients fused_backward_cpu(const MemoryStepInputs& inputs,
                                       const MemoryStepWeights& weights,
                                       const MemoryStepOptions& options,
                                       const std::vector<at::Tensor>& grad_updates,
                                       const std::vector<at::Tensor>& grad_memories);

/// Whether the sizes of weights with one layer fit the kernels' registers and stack.
bool fused_sizes(const MemoryStepWeights& weights, int64_t num_features);

}  // namespace mnemosyne::ops
