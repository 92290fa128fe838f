#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "mnemosyne/ops/tensor_step/pages.h"

namespace mnemosyne::ops {

/// Numbers of the host on a device.
at::Tensor on_device(const std::vector<double>& values, at::IntArrayRef sizes, at::ScalarType dtype,
                     at::Device device);
at::Tensor on_device(const std::vector<int64_t>& values, at::IntArrayRef sizes, at::Device device);

/// From numbers of the B rows of pages to those of the C chunks and T tensors, and back, on their
/// device.
class ChunkMap {
 public:
  ChunkMap(const TensorStep& step, const Pages& pages);

  int64_t chunks() const { return num_chunks_; }

  /// [K, C] -> [B, 1] for each of K.
  std::vector<at::Tensor> rows(const at::Tensor& table, at::ScalarType dtype) const;
  at::Tensor row_flags(const at::Tensor& flags) const;  ///< [C] -> [B, 1]

  at::Tensor chunk_sums(const at::Tensor& rows) const;     ///< [K, B] or [B] -> [K, C] or [C]
  at::Tensor tensors_with(const at::Tensor& flags) const;  ///< [C] -> [T]: whether any chunk has it

  /// [C] -> [C]: the sum over the chunks of the same tensor; whether it is so of any.
  at::Tensor total(const at::Tensor& values) const;
  at::Tensor any(const at::Tensor& flags) const;

  /// The first number of each chunk's tensor, [C]; undefined for empty ones.
  at::Tensor first_numbers(const at::Tensor& pages) const;

 private:
  at::Tensor tensor_sums(const at::Tensor& values) const;  // [C] -> [T]
  at::Tensor segment_sums(const at::Tensor& values, const at::Tensor& lengths,
                          const at::Tensor& index) const;

  int64_t num_chunks_ = 0;
  at::Tensor chunk_of_row_;      // [B]
  at::Tensor rows_of_chunk_;     // [C]
  at::Tensor begins_;            // [C]
  at::Tensor chunks_of_tensor_;  // [T], where a tensor has several
  at::Tensor tensor_of_chunk_;   // [C]
};

}  // namespace mnemosyne::ops
