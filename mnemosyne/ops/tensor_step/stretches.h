#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "mnemosyne/ops/tensor_step/tensor_step.h"

namespace mnemosyne::ops {

/// Coordinates of a list that are treated at a time where it is put into pages.
inline constexpr int64_t kMostAtOnce = int64_t{1} << 24;

/// A part of a list, with its part of what belongs to the list's chunks.
struct Stretch {
  TensorStep step;
  int64_t first_chunk = 0;
  int64_t num_chunks = 0;

  at::Tensor of(const at::Tensor& values) const;  ///< [C, ...], or undefined
  StepSums of(const StepSums& sums) const;
  StepCorrection of(const StepCorrection& correction) const;

  /// Whether there is any coordinate.
  bool has_numbers() const;
};

/// A list in stretches of at most `most` coordinates, or of one tensor.
std::vector<Stretch> stretches(const TensorStep& step, int64_t most);

}  // namespace mnemosyne::ops
