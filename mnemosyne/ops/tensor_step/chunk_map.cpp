#include "mnemosyne/ops/tensor_step/chunk_map.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/segment_reduce.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "mnemosyne/ops/tensor_step/chunks.h"

namespace mnemosyne::ops {

at::Tensor on_device(const std::vector<double>& values, at::ScalarType dtype, at::Device device) {
  const at::Tensor host = at::empty({static_cast<int64_t>(values.size())}, at::kDouble);
  std::copy(values.begin(), values.end(), host.mutable_data_ptr<double>());
  return host.to(device, dtype, /*non_blocking=*/true);
}

at::Tensor on_device(const std::vector<int64_t>& values, at::Device device) {
  const at::Tensor host = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  std::copy(values.begin(), values.end(), host.mutable_data_ptr<int64_t>());
  return host.to(device, /*non_blocking=*/true);
}

ChunkMap::ChunkMap(const TensorStep& step, const Pages& pages)
    : num_chunks_(static_cast<int64_t>(pages.rows_of_chunks().size())) {
  std::vector<int64_t> numbers = pages.rows_of_chunks();
  for (const StepChunk& chunk : step_chunks(step)) {
    numbers.push_back(pages.begins_of_tensors()[chunk.tensor]);
  }
  const std::vector<at::Tensor> both =
      on_device(numbers, pages.device()).view({2, num_chunks_}).unbind();
  rows_of_chunk_ = both[0];
  begins_ = both[1];
  chunk_of_row_ = at::repeat_interleave(rows_of_chunk_, pages.rows());
  if (num_chunks_ == static_cast<int64_t>(step.size())) return;
  chunks_of_tensor_ = on_device(chunk_counts(step), pages.device());
  tensor_of_chunk_ = at::repeat_interleave(chunks_of_tensor_, num_chunks_);
}

std::vector<at::Tensor> ChunkMap::rows(const at::Tensor& table, at::ScalarType dtype) const {
  return table.to(dtype).index_select(1, chunk_of_row_).unsqueeze(2).unbind();
}

at::Tensor ChunkMap::row_flags(const at::Tensor& flags) const {
  return flags.index_select(0, chunk_of_row_).unsqueeze(1);
}

at::Tensor ChunkMap::segment_sums(const at::Tensor& values, const at::Tensor& lengths,
                                  const at::Tensor& index) const {
  const int64_t height = values.size(0), width = lengths.size(0);
  if (!values.is_cpu() && !values.is_cuda()) {
    return at::zeros({height, width}, values.options()).index_add(1, index, values);
  }
  return at::segment_reduce(values.reshape(-1), "sum", lengths.repeat({height}), {}, {},
                            /*axis=*/0, /*unsafe=*/true)
      .view({height, width});
}

at::Tensor ChunkMap::chunk_sums(const at::Tensor& rows) const {
  return segment_sums(rows, rows_of_chunk_, chunk_of_row_);
}

at::Tensor ChunkMap::tensor_sums(const at::Tensor& values) const {
  if (!chunks_of_tensor_.defined()) return values;
  return segment_sums(values.unsqueeze(0), chunks_of_tensor_, tensor_of_chunk_).select(0, 0);
}

at::Tensor ChunkMap::total(const at::Tensor& values) const {
  if (!chunks_of_tensor_.defined()) return values;
  return tensor_sums(values).index_select(0, tensor_of_chunk_);
}

at::Tensor ChunkMap::any(const at::Tensor& flags) const {
  if (!chunks_of_tensor_.defined()) return flags;
  return total(flags.to(at::kFloat)) > 0;
}

at::Tensor ChunkMap::first_numbers(const at::Tensor& pages) const {
  return pages.reshape(-1).index_select(0, begins_.clamp_max(pages.numel() - 1));
}

}  // namespace mnemosyne::ops
