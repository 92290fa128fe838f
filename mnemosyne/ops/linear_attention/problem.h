#pragma once

#include "mnemosyne/kernels/linear_attention.h"
#include "mnemosyne/ops/linear_attention/check.h"
#include "mnemosyne/ops/linear_attention/linear_attention.h"

namespace mnemosyne::ops {

/// A call as its kernels see it, on the device of its tensors: parameters without outputs, and the
/// float32 tensors that they point into.
struct LinearAttentionProblem {
  LinearAttentionInputs inputs;
  at::Tensor omega, omega_transposed, decay;
  LinearAttentionShape shape;
  kernels::LinearAttentionParams params{};

  LinearAttentionProblem(const LinearAttentionInputs& given, const LinearAttentionOptions& options);

  /// Whether positions differ between the examples.
  bool has_own_positions() const;

 private:
  void pack_omega(const LinearAttentionOptions& options);
  void fill_params(const LinearAttentionOptions& options);
};

/// float32 and contiguous, without a graph.
at::Tensor dense_float(const at::Tensor& x);

/// float32, of rows that may have any strides; their elements are contiguous.
at::Tensor float_rows(const at::Tensor& x);

kernels::AttentionRows rows_of(const at::Tensor& x);

/// Where a tensor's numbers are; null if it is undefined, `target` also if it has none.
const float* pointer(const at::Tensor& x);
float* target(const at::Tensor& x);

/// Contiguous [H,length,R], or with a batch in front.
kernels::AttentionTables<const float> tables_of(const at::Tensor& x);
kernels::AttentionTables<float> target_tables(const at::Tensor& x);

}  // namespace mnemosyne::ops
