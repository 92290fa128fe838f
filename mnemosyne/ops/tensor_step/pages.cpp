#include "mnemosyne/ops/tensor_step/pages.h"

#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>

#include "mnemosyne/ops/raw_view.h"
#include "mnemosyne/ops/tensor_step/chunks.h"

namespace mnemosyne::ops {
namespace {

constexpr int64_t kLongest = 1024;

/// What a row costs beside its numbers, in numbers: that of the coefficients that it meets.
constexpr int64_t kRowCost = 16;

int64_t rows_at(const std::vector<StepChunk>& chunks, int64_t length) {
  int64_t rows = 0;
  for (const StepChunk& chunk : chunks) rows += (chunk.size + length - 1) / length;
  return rows;
}

/// The length of a row that costs least. The coordinates of a tensor lie next to each other only
/// where it divides the length of a chunk.
int64_t choose_length(const std::vector<StepChunk>& chunks, int64_t chunk_size) {
  int64_t best = 1, lowest = std::numeric_limits<int64_t>::max();
  const auto consider = [&](int64_t length) {
    const int64_t cost = rows_at(chunks, length) * (length + kRowCost);
    if (cost >= lowest) return;
    lowest = cost;
    best = length;
  };
  if (chunk_size > 0) consider(chunk_size);
  for (int64_t length = kLongest; length >= 1; --length) {
    const bool fits = chunk_size > 0 ? chunk_size % length == 0
                                     : length >= kRowCost && (length & (length - 1)) == 0;
    if (fits) consider(length);
  }
  return best;
}

}  // namespace

Pages::Pages(const TensorStep& step) : shapes_(step.params) {
  const std::vector<StepChunk> chunks = step_chunks(step);
  length_ = choose_length(chunks, step.chunk_size);
  if (!shapes_.empty()) device_ = shapes_[0].device();
  for (const at::Tensor& param : shapes_) {
    if (step_dtype(param) == at::kDouble) dtype_ = at::kDouble;
  }
  for (const StepChunk& chunk : chunks) {
    if (chunk.begin == 0) begins_.push_back(num_rows_ * length_);
    rows_of_chunks_.push_back((chunk.size + length_ - 1) / length_);
    num_rows_ += rows_of_chunks_.back();
  }
}

at::Tensor Pages::zeros(int64_t count) const {
  return at::zeros({count, num_rows_, length_}, at::device(device_).dtype(dtype_));
}

std::vector<at::Tensor> Pages::views(const at::Tensor& pages) const {
  std::vector<at::Tensor> views;
  for (size_t i = 0; i < shapes_.size(); ++i) {
    if (shapes_[i].numel() > 0) views.push_back(raw_view(pages, shapes_[i].sizes(), begins_[i]));
  }
  return views;
}

at::Tensor Pages::matrix(const at::Tensor& pages, size_t i, int64_t rows) const {
  return raw_view(pages, {rows, shapes_[i].numel() / rows}, begins_[i]);
}

Pages::Copies Pages::copies(const Pairs& pages_and_tensors) const {
  Copies copies;
  for (const auto& [pages, tensors] : pages_and_tensors) {
    for (size_t i = 0; i < tensors->size(); ++i) {
      const at::Tensor& tensor = (*tensors)[i];
      if (!tensor.defined() || tensor.numel() != shapes_[i].numel() || tensor.numel() == 0)
        continue;
      copies.first.push_back(raw_view(pages, shapes_[i].sizes(), begins_[i]));
      copies.second.push_back(tensor);
    }
  }
  return copies;
}

void Pages::load(const Pairs& pages_and_tensors) const {
  const auto [views, tensors] = copies(pages_and_tensors);
  if (!views.empty()) at::_foreach_copy_(views, tensors);
}

void Pages::store(const Pairs& pages_and_tensors) const {
  const auto [views, tensors] = copies(pages_and_tensors);
  if (!views.empty()) at::_foreach_copy_(tensors, views);
}

}  // namespace mnemosyne::ops
