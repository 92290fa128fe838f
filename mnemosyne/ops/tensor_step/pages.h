#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "mnemosyne/ops/tensor_step/tensor_step.h"

namespace mnemosyne::ops {

/// A list of tensors as the rows of one matrix [B, L], so that one operation treats all of them: a
/// tensor begins a row, a chunk begins a row, and the rest of their last rows is zeros. A number of
/// each chunk is one of each row, [B, 1].
class Pages {
 public:
  explicit Pages(const TensorStep& step);

  int64_t rows() const { return num_rows_; }
  at::ScalarType dtype() const { return dtype_; }
  at::Device device() const { return device_; }

  /// How many rows each chunk has, [C], and where its tensor begins, in numbers.
  const std::vector<int64_t>& rows_of_chunks() const { return rows_of_chunks_; }
  const std::vector<int64_t>& begins_of_tensors() const { return begins_; }

  at::Tensor zeros(int64_t count) const;  ///< [count, B, L]

  /// The tensors of the list that are not empty, in their shapes, as parts of a matrix [B, L].
  std::vector<at::Tensor> views(const at::Tensor& pages) const;
  /// Tensor i as a matrix [rows, columns].
  at::Tensor matrix(const at::Tensor& pages, size_t i, int64_t rows) const;

  /// Fills pages and tensors of a list, one operation for several of each.
  using Pairs = std::vector<std::pair<at::Tensor, const std::vector<at::Tensor>*>>;
  void load(const Pairs& pages_and_tensors) const;
  void store(const Pairs& pages_and_tensors) const;

 private:
  using Copies = std::pair<std::vector<at::Tensor>, std::vector<at::Tensor>>;
  Copies copies(const Pairs& pages_and_tensors) const;

  at::ScalarType dtype_ = at::kFloat;
  at::Device device_ = at::kCPU;
  int64_t length_ = 1;  // L
  int64_t num_rows_ = 0;
  std::vector<at::Tensor> shapes_;  // the parameters
  std::vector<int64_t> begins_;     // [T], in numbers
  std::vector<int64_t> rows_of_chunks_;
};

}  // namespace mnemosyne::ops
