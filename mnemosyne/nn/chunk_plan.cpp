#include "mnemosyne/nn/chunk_plan.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace mnemosyne::nn {
namespace {

at::Tensor on(at::Device device, const std::vector<int64_t>& values) {
  const at::Tensor host = at::tensor(values, at::kLong);
  return device.is_cpu() ? host : host.to(device, at::kLong, /*non_blocking=*/true);
}

}  // namespace

ChunkPlan::ChunkPlan(const std::vector<int64_t>& counts, int64_t length, at::Device device) {
  TORCH_CHECK(length >= 0, "[chunk_plan] expected a length of 0 or more, got ", length);
  int64_t longest = 0, total = 0;
  for (const int64_t count : counts) {
    TORCH_CHECK(count >= 0, "[chunk_plan] expected counts of 0 or more, got ", count);
    longest = std::max(longest, count);
    total += count;
  }
  const int64_t places = std::max<int64_t>(length > 0 ? std::min(length, longest) : longest, 1);
  std::vector<int64_t> source, place, chunk;
  int64_t token = 0;
  for (const int64_t count : counts) {
    chunk_counts_.push_back(length == 0 ? 1 : (count + places - 1) / places);
    for (int64_t k = 0; k < chunk_counts_.back() * places; ++k) {
      if (k < count) {
        place.push_back(static_cast<int64_t>(source.size()));
        chunk.push_back(place.back() / places);
      }
      source.push_back(k < count ? token++ : total);
    }
  }
  source_ = on(device, source);
  place_ = on(device, place);
  chunk_ = on(device, chunk);
  mask_ = (source_ < total).view({-1, places});
}

at::Tensor ChunkPlan::gather(const at::Tensor& tokens) const {
  TORCH_CHECK(tokens.dim() == 2 && tokens.size(0) == place_.size(0),
              "[chunk_plan] expected tokens of shape [", place_.size(0), ",E], got ",
              tokens.sizes());
  const at::Tensor padded = at::cat({tokens, at::zeros({1, tokens.size(1)}, tokens.options())});
  return padded.index_select(0, source_).view({mask_.size(0), mask_.size(1), tokens.size(1)});
}

at::Tensor ChunkPlan::scatter(const at::Tensor& chunks) const {
  return chunks.flatten(0, 1).index_select(0, place_);
}

at::Tensor ChunkPlan::pool(const at::Tensor& tokens) const {
  const at::Tensor sizes = mask_.sum(1, /*keepdim=*/true).clamp_min(1);
  return gather(tokens).sum(1) / sizes.to(tokens.scalar_type());
}

at::Tensor ChunkPlan::spread(const at::Tensor& values) const {
  return values.index_select(0, chunk_);
}

}  // namespace mnemosyne::nn
