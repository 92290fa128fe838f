#include <ATen/DeviceAccelerator.h>

#include "mnemosyne/ops/memory_step/fused.h"
#include "mnemosyne/ops/memory_step/problem.h"

namespace mnemosyne::ops {

void fused_forward_cuda(const MemoryStepInputs& inputs, const MemoryStepWeights& weights,
                        const MemoryStepOptions& options, const MemoryStepOutputs& outputs) {
  const MemoryStepProblem problem(inputs, weights, options, outputs);
  void* stream = at::accelerator::getCurrentStream(inputs.step.device().index()).native_handle();
  for (const kernels::MemoryStepParams& tensor : problem.tensors) {
    kernels::memory_step_forward_cuda(tensor, stream);
  }
}

}  // namespace mnemosyne::ops
