#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "mnemosyne/ops/tensor_step/tensor_step.h"

namespace mnemosyne::optim {

/// What the learned part of the default Mnemosyne decides: K numbers a tensor or chunk. Each is
/// declared once, in step_outputs.cpp, with its name and with what it does.

/// How far they can move a tensor: the logarithm of its step and its mixture.
struct OutputBounds {
  double step = 0.0;
  double mixture = 0.5;
};

/// Outputs z [C, K] as what they do to the step; z = 0 changes nothing. Differentiable.
ops::StepCorrection step_correction(const at::Tensor& z, const OutputBounds& bounds);

/// K names, in the order of the columns.
const std::vector<std::string>& step_output_names();

}  // namespace mnemosyne::optim
