#include "mnemosyne/ops/tensor_step/chunk_map.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/segment_reduce.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "mnemosyne/ops/raw_view.h"
#include "mnemosyne/ops/tensor_step/chunks.h"

namespace mnemosyne::ops {
namespace {

/// Lengths 2, 3 -> 0, 0, 1, 1, 1, of which the caller knows the number.
at::Tensor index_of(const at::Tensor& lengths, int64_t total) {
  return at::repeat_interleave(lengths, std::optional<int64_t>(total));
}

/// [..., B] -> [..., B, 1]
at::Tensor column(const at::Tensor& x) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.push_back(1);
  return raw_view(x, sizes);
}

}  // namespace

// The memory of the values may go at once: what is not pinned is staged before a copy returns.
at::Tensor on_device(const std::vector<double>& values, at::IntArrayRef sizes, at::ScalarType dtype,
                     at::Device device) {
  const at::Tensor host = at::from_blob(const_cast<double*>(values.data()), sizes, at::kDouble);
  return host.to(device, dtype, /*non_blocking=*/true, /*copy=*/true);
}

at::Tensor on_device(const std::vector<int64_t>& values, at::IntArrayRef sizes, at::Device device) {
  const at::Tensor host = at::from_blob(const_cast<int64_t*>(values.data()), sizes, at::kLong);
  return host.to(device, at::kLong, /*non_blocking=*/true, /*copy=*/true);
}

ChunkMap::ChunkMap(const TensorStep& step, const Pages& pages)
    : num_chunks_(static_cast<int64_t>(pages.rows_of_chunks().size())) {
  std::vector<int64_t> numbers = pages.rows_of_chunks();
  for (const StepChunk& chunk : step_chunks(step)) {
    numbers.push_back(pages.begins_of_tensors()[chunk.tensor]);
  }
  const std::vector<at::Tensor> both =
      raw_unbind(on_device(numbers, {2, num_chunks_}, pages.device()));
  rows_of_chunk_ = both[0];
  begins_ = both[1];
  chunk_of_row_ = index_of(rows_of_chunk_, pages.rows());
  if (num_chunks_ == static_cast<int64_t>(step.size())) return;
  chunks_of_tensor_ =
      on_device(chunk_counts(step), {static_cast<int64_t>(step.size())}, pages.device());
  tensor_of_chunk_ = index_of(chunks_of_tensor_, num_chunks_);
}

std::vector<at::Tensor> ChunkMap::rows(const at::Tensor& table, at::ScalarType dtype) const {
  return raw_unbind(column(table.to(dtype).index_select(1, chunk_of_row_)));
}

at::Tensor ChunkMap::row_flags(const at::Tensor& flags) const {
  return column(flags.index_select(0, chunk_of_row_));
}

at::Tensor ChunkMap::segment_sums(const at::Tensor& values, const at::Tensor& lengths,
                                  const at::Tensor& index) const {
  const int64_t width = lengths.size(0);
  if (!values.is_cpu() && !values.is_cuda()) {
    std::vector<int64_t> sizes = values.sizes().vec();
    sizes.back() = width;
    return at::zeros(sizes, values.options()).index_add(-1, index, values);
  }
  const auto sums = [](const at::Tensor& x, const at::Tensor& of) {
    return at::segment_reduce(x, "sum", of, {}, {}, /*axis=*/0, /*unsafe=*/true);
  };
  if (values.dim() == 1) return sums(values, lengths);
  const int64_t height = values.size(0);
  return sums(values.reshape(-1), lengths.repeat({height})).view({height, width});
}

at::Tensor ChunkMap::chunk_sums(const at::Tensor& rows) const {
  return segment_sums(rows, rows_of_chunk_, chunk_of_row_);
}

at::Tensor ChunkMap::tensor_sums(const at::Tensor& values) const {
  if (!chunks_of_tensor_.defined()) return values;
  return segment_sums(values, chunks_of_tensor_, tensor_of_chunk_);
}

at::Tensor ChunkMap::total(const at::Tensor& values) const {
  if (!chunks_of_tensor_.defined()) return values;
  return tensor_sums(values).index_select(0, tensor_of_chunk_);
}

at::Tensor ChunkMap::any(const at::Tensor& flags) const {
  if (!chunks_of_tensor_.defined()) return flags;
  return total(flags.to(at::kFloat)) > 0;
}

at::Tensor ChunkMap::tensors_with(const at::Tensor& flags) const {
  return chunks_of_tensor_.defined() ? tensor_sums(flags.to(at::kFloat)) > 0 : flags;
}

at::Tensor ChunkMap::first_numbers(const at::Tensor& pages) const {
  return raw_view(pages, {pages.numel()}).index_select(0, begins_.clamp_max(pages.numel() - 1));
}

}  // namespace mnemosyne::ops
