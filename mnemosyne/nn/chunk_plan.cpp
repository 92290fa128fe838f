#include "mnemosyne/nn/chunk_plan.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>

namespace mnemosyne::nn {
namespace {

template <typename Number>
at::Tensor on(at::Device device, const std::vector<Number>& values, at::ScalarType type) {
  const at::Tensor host = at::tensor(values, type);
  return device.is_cpu() ? host : host.to(device, type, /*non_blocking=*/true);
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
  places_ = std::max<int64_t>(length > 0 ? std::min(length, longest) : longest, 1);
  std::vector<int64_t> source, place, chunk, present;
  std::vector<double> sizes;
  int64_t token = 0;
  for (const int64_t count : counts) {
    chunk_counts_.push_back(length == 0 ? 1 : (count + places_ - 1) / places_);
    for (int64_t k = 0; k < chunk_counts_.back(); ++k) {
      sizes.push_back(static_cast<double>(std::clamp<int64_t>(count - k * places_, 1, places_)));
    }
    for (int64_t k = 0; k < chunk_counts_.back() * places_; ++k) {
      if (k < count) {
        place.push_back(static_cast<int64_t>(source.size()));
        chunk.push_back(place.back() / places_);
      }
      present.push_back(k < count);
      source.push_back(k < count ? token++ : 0);
    }
  }
  source_ = on(device, source, at::kLong);
  place_ = on(device, place, at::kLong);
  chunk_ = on(device, chunk, at::kLong);
  sizes_ = on(device, sizes, at::kFloat).unsqueeze(1);
  if (place.size() == source.size()) return;
  mask_ = on(device, present, at::kLong).to(at::kBool).view({-1, places_});
  padding_ = mask_.logical_not().view({-1, 1});
}

at::Tensor ChunkPlan::gather(const at::Tensor& tokens) const {
  TORCH_CHECK(tokens.dim() == 2 && tokens.size(0) == num_tokens(),
              "[chunk_plan] expected tokens of shape [", num_tokens(), ",E], got ", tokens.sizes());
  const std::array<int64_t, 3> shape{sizes_.size(0), places_, tokens.size(1)};
  if (!mask_.defined()) return tokens.reshape(shape);
  if (num_tokens() == 0) return at::zeros(shape, tokens.options());
  return tokens.index_select(0, source_).masked_fill(padding_, 0.0).view(shape);
}

at::Tensor ChunkPlan::scatter(const at::Tensor& chunks) const {
  const at::Tensor places = chunks.flatten(0, 1);
  return mask_.defined() ? places.index_select(0, place_) : places;
}

at::Tensor ChunkPlan::pool(const at::Tensor& tokens) const {
  return places_ == 1 ? gather(tokens).squeeze(1) : gather(tokens).sum(1) / sizes_;
}

at::Tensor ChunkPlan::spread(const at::Tensor& values) const {
  return values.index_select(0, chunk_);
}

}  // namespace mnemosyne::nn
