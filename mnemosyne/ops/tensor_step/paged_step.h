#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "mnemosyne/ops/tensor_step/chunk_map.h"
#include "mnemosyne/ops/tensor_step/chunks.h"
#include "mnemosyne/ops/tensor_step/pages.h"
#include "mnemosyne/ops/tensor_step/tensor_step.h"

namespace mnemosyne::ops {

// L numbers a row, B rows, C chunks.

/// x / (1 + |x|)
at::Tensor soft(const at::Tensor& x);

/// at::isfinite in two operations.
at::Tensor is_finite(const at::Tensor& x);

/// Numbers of the host for every chunk, [K, C], from a function of its tensor's index and itself
/// that gives K of them.
template <typename Function>
at::Tensor chunk_table(const TensorStep& step, const Pages& pages, const Function& column) {
  std::vector<std::vector<double>> columns;
  for (const StepChunk& chunk : step_chunks(step)) columns.push_back(column(chunk.tensor, chunk));
  const size_t height = columns[0].size();
  std::vector<double> values;
  for (size_t k = 0; k < height; ++k) {
    for (const std::vector<double>& own : columns) values.push_back(own[k]);
  }
  return on_device(values, {static_cast<int64_t>(height), static_cast<int64_t>(columns.size())},
                   sum_dtype(pages.device()), pages.device());
}

/// What the coordinates of a row meet, [B, 1] each; what no correction asks for is undefined.
struct Coefficients {
  at::Tensor step, decay, blend, momentum_correction, second_correction, eps;
  at::Tensor is_matrix;  // as a number
  at::Tensor scale;      // of an orthogonalised matrix
  at::Tensor unit;       // the root mean square of a direction, of a matrix; 1 of a vector
  at::Tensor mixture, mean_second_moment;
  at::Tensor learned_decay;  // in units of the step, part of `decay`
  std::vector<at::Tensor> readouts;
};

/// The pages of a list after its moments have advanced, and what happens to them.
struct PagedStep {
  const TensorStep step;
  Pages pages;
  ChunkMap map;
  at::Tensor g, m, v, p;
  Coefficients c;
  at::Tensor matrix;                 // [C], as a number
  at::Tensor base_step, base_blend;  // [C], before the correction
  at::Tensor undecided;              // [C]: a correction or sum is not finite; or undefined

  PagedStep(TensorStep of, const StepSums& sums, const StepCorrection& correction);

  bool any_matrix() const;

  /// m + blend (g - m)
  at::Tensor blended() const;
  /// The matrices of the list as parts of pages.
  std::vector<at::Tensor> matrices(const at::Tensor& of) const;

 private:
  void decide(const StepSums& sums, const StepCorrection& correction);
};

/// What coordinates move along before it is corrected, [B, L] each.
struct PagedDirections {
  at::Tensor v;     // v^
  at::Tensor root;  // sqrt v^ + eps
  at::Tensor a;     // m^ / root
  at::Tensor own;   // D

  /// `orthogonal` has the orthogonalised matrices, not yet scaled; undefined where there are none.
  PagedDirections(const PagedStep& x, const at::Tensor& m, const at::Tensor& v,
                  const at::Tensor& orthogonal);
};

/// The orthogonalised matrices of a list, not yet scaled; anything for vectors.
at::Tensor orthogonal_directions(const PagedStep& x);

/// What the read-outs c are multiplied with in h of `directions_reference`, [B, L] each, and h.
std::vector<at::Tensor> readout_inputs(const PagedStep& x, const PagedDirections& directions);
at::Tensor readout_sum(const PagedStep& x, const std::vector<at::Tensor>& inputs);

/// (D + w (r a - D)) (1 + kReadoutBound soft h) of `directions_reference`.
at::Tensor corrected_direction(const PagedStep& x, const PagedDirections& directions);

}  // namespace mnemosyne::ops
