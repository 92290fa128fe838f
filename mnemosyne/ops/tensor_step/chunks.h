#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "mnemosyne/ops/tensor_step/tensor_step.h"

namespace mnemosyne::ops {

/// A chunk of a list of tensors: the coordinates [begin, begin + size) of one of them.
struct StepChunk {
  size_t tensor;
  int64_t begin;
  int64_t size;
};

/// All of them, tensor after tensor.
std::vector<StepChunk> step_chunks(const TensorStep& step);

/// float64 for float64, float32 for every other dtype: that of a tensor's state and arithmetic.
at::ScalarType step_dtype(const at::Tensor& param);

/// Whether the list remembers what the step before took off its parameters.
bool has_previous_updates(const TensorStep& step);

/// Whether the second moments are bfloat16.
bool has_compact_second_moments(const TensorStep& step);

/// Whether a matrix' own direction is orthogonalised: an empty one has none.
bool is_matrix(const TensorStep& step, size_t i);

/// kDirectionRms sqrt(max(rows, columns)): what an orthogonalised direction is multiplied with.
double direction_scale(const TensorStep& step, size_t i);

/// Throws unless all lists have the same length, one device, and the shapes belong together.
void check_step(const TensorStep& step, bool with_sums);

/// What is given, or a correction that changes nothing; throws unless the members have the shapes
/// [C] and [C, kNumReadouts].
StepCorrection checked_correction(const TensorStep& step, const StepCorrection* correction);

/// Whether any member is.
bool is_given(const StepCorrection& correction);

/// float64, or float32 on devices without.
at::ScalarType sum_dtype(at::Device device);

}  // namespace mnemosyne::ops
