#include "mnemosyne/ops/tensor_step/tensor_step.h"

#include <ATen/core/grad_mode.h>

#include "mnemosyne/ops/tensor_step/chunks.h"
#include "mnemosyne/ops/tensor_step/cpu.h"

namespace mnemosyne::ops {

StepSums advance_moments_(TensorStep& step, bool with_sums) {
  const at::NoGradGuard no_grad;
  check_step(step, with_sums);
  if (tensor_step_has_kernel(step)) return advance_moments_cpu_(step, with_sums);
  const std::vector<at::Tensor> momenta = step.momenta, second_moments = step.second_moments;
  const StepSums sums = advance_moments_reference(step, with_sums);
  for (size_t i = 0; i < step.size(); ++i) {
    step.momenta[i] = momenta[i].copy_(step.momenta[i]);
    if (!step.second_moment(i).defined()) continue;
    step.second_moments[i] = second_moments[i].copy_(step.second_moments[i]);
  }
  return sums;
}

at::Tensor apply_directions_(TensorStep& step, const StepSums& sums,
                             const StepCorrection* correction) {
  const at::NoGradGuard no_grad;
  if (!tensor_step_has_kernel(step)) return apply_directions_reference_(step, sums, correction);
  TORCH_CHECK(
      correction == nullptr || !correction->readouts.defined() || sums.second_moment.defined(),
      "[tensor_step] expected sums for read-outs, got none");
  return apply_directions_cpu_(step, sums, checked_correction(step, correction));
}

}  // namespace mnemosyne::ops
