#include "mnemosyne/ops/tensor_step/tensor_step.h"

#include <ATen/core/grad_mode.h>

#include "mnemosyne/ops/tensor_step/chunks.h"
#include "mnemosyne/ops/tensor_step/cpu.h"
#include "mnemosyne/ops/tensor_step/device.h"

namespace mnemosyne::ops {

StepSums advance_moments_(TensorStep& step, bool with_sums) {
  const at::NoGradGuard no_grad;
  check_step(step, with_sums);
  return tensor_step_has_kernel(step) ? advance_moments_cpu_(step, with_sums)
                                      : advance_moments_device_(step, with_sums);
}

at::Tensor apply_directions_(TensorStep& step, const StepSums& sums,
                             const StepCorrection* correction) {
  const at::NoGradGuard no_grad;
  const StepCorrection given = checked_correction(step, correction);
  TORCH_CHECK(!given.readouts.defined() || sums.second_moment.defined(),
              "[tensor_step] expected sums for read-outs, got none");
  return tensor_step_has_kernel(step) ? apply_directions_cpu_(step, sums, given)
                                      : apply_directions_device_(step, sums, given);
}

}  // namespace mnemosyne::ops
