#pragma once

#include <vector>

#include "mnemosyne/kernels/memory_step.h"
#include "mnemosyne/ops/memory_step/fused.h"

namespace mnemosyne::ops {

/// A step as its kernels see it, on the device of its tensors: a problem for each tensor, with the
/// weights that all of them share. Pointers are into the arguments, which are contiguous, and into
/// tensors that it keeps.
struct MemoryStepProblem {
  kernels::MemoryStepModel model{};
  std::vector<kernels::MemoryStepParams> tensors{};

  /// `outputs` may be empty, for the backward pass.
  MemoryStepProblem(const MemoryStepInputs& inputs, const MemoryStepWeights& weights,
                    const MemoryStepOptions& options, const MemoryStepOutputs& outputs);

 private:
  const float* keep(const at::Tensor& tensor);

  std::vector<at::Tensor> kept_{};
};

}  // namespace mnemosyne::ops
