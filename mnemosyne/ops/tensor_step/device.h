#pragma once

#include "mnemosyne/ops/tensor_step/stretches.h"

namespace mnemosyne::ops {

/// `advance_moments_` and `apply_directions_` in plain ATen on any device, in few operations over
/// the whole list and without a look at any number. While it runs it needs about twenty times the
/// memory of the gradients of at most `most_at_once` coordinates, or of one tensor: 1.3 GB.
StepSums advance_moments_device_(TensorStep& step, bool with_sums,
                                 int64_t most_at_once = kMostAtOnce);
at::Tensor apply_directions_device_(TensorStep& step, const StepSums& sums,
                                    const StepCorrection& correction,
                                    int64_t most_at_once = kMostAtOnce);

}  // namespace mnemosyne::ops
