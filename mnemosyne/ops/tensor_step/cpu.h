#pragma once

#include "mnemosyne/ops/tensor_step/tensor_step.h"

namespace mnemosyne::ops {

/// Whether the fused kernels can take the list: on the CPU, no float64.
bool tensor_step_has_kernel(const TensorStep& step);

/// `advance_moments_` and `apply_directions_` through the fused kernels.
StepSums advance_moments_cpu_(TensorStep& step, bool with_sums);
at::Tensor apply_directions_cpu_(TensorStep& step, const StepSums& sums,
                                 const StepCorrection& correction);

}  // namespace mnemosyne::ops
