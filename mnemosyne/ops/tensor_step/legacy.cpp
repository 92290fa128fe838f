#include <ATen/ops/isfinite.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>

#include "mnemosyne/kernels/tensor_step.h"
#include "mnemosyne/ops/orthogonalize/orthogonalize.h"
#include "mnemosyne/ops/parallel.h"
#include "mnemosyne/ops/tensor_step/tensor_step.h"

namespace mnemosyne::ops {
namespace {

constexpr int64_t kChunk = 16384;

/// The coordinates that are worth waking up a thread.
constexpr int64_t kWorth = 32768;

struct Chunk {
  size_t item;
  int64_t begin;
  int64_t size;
};

std::vector<Chunk> split(const std::vector<TensorStepItem>& items, bool only_matrices = false) {
  std::vector<Chunk> chunks;
  for (size_t i = 0; i < items.size(); ++i) {
    if (only_matrices && items[i].rows == 0) continue;
    const int64_t size = items[i].param.numel();
    for (int64_t begin = 0; begin < size; begin += kChunk) {
      chunks.push_back({i, begin, std::min(kChunk, size - begin)});
    }
  }
  return chunks;
}

template <typename Function>
void for_each_chunk(const std::vector<Chunk>& chunks, const Function& function) {
  const int64_t count = static_cast<int64_t>(chunks.size());
  int64_t total = 0;
  for (const Chunk& chunk : chunks) total += chunk.size;
  const int64_t grain = parallel_grain(count, total, kWorth);
  parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) function(c, chunks[c]);
  });
}

float* data(const at::Tensor& tensor, int64_t offset) {
  return tensor.defined() ? tensor.data_ptr<float>() + offset : nullptr;
}

TensorSums& operator+=(TensorSums& total, const kernels::ChunkSums& chunk) {
  total.grad_dot_momentum += chunk.grad_dot_momentum;
  total.grad_squared += chunk.grad_squared;
  total.old_squared += chunk.old_squared;
  total.new_squared += chunk.new_squared;
  total.param_squared += chunk.param_squared;
  total.second_moment += chunk.second_moment;
  total.zeros += chunk.zeros;
  return total;
}

// The scratch directions of all matrices, one after the other; kept by each thread between steps.
struct Directions {
  std::vector<float> values;
  std::vector<int64_t> offsets;     // per item, -1 for those that are no matrices
  std::vector<MatrixRef> matrices;  // those with something in them

  void layout(const std::vector<TensorStepItem>& items) {
    offsets.clear();
    matrices.clear();
    int64_t total = 0;
    for (const TensorStepItem& item : items) {
      offsets.push_back(item.rows > 0 ? total : -1);
      if (item.rows > 0) total += item.param.numel();
    }
    if (static_cast<int64_t>(values.size()) < total) values.resize(total);
    for (size_t i = 0; i < items.size(); ++i) {
      if (offsets[i] < 0 || items[i].param.numel() == 0) continue;
      const int64_t rows = items[i].rows;
      matrices.push_back({values.data() + offsets[i], rows, items[i].param.numel() / rows});
    }
  }
};

kernels::ApplyParams apply_params(const TensorStepItem& item, const TensorCoefficients& c,
                                  const Chunk& chunk) {
  kernels::ApplyParams p{};
  p.param = data(item.param, chunk.begin);
  p.grad = data(item.grad, chunk.begin);
  p.momentum = data(item.momentum, chunk.begin);
  p.second_moment = data(item.second_moment, chunk.begin);
  p.size = chunk.size;
  p.step = static_cast<float>(c.step);
  p.decay = static_cast<float>(c.decay);
  p.scale = 1.0f;
  p.rms = static_cast<float>(kDirectionRms);
  p.mixture = static_cast<float>(c.mixture);
  p.momentum_correction = static_cast<float>(c.momentum_correction);
  p.second_correction = static_cast<float>(c.second_correction);
  p.eps = static_cast<float>(c.eps);
  p.corrected = c.corrected;
  p.bound = static_cast<float>(kReadoutBound);
  for (int k = 0; k < kNumReadouts; ++k) p.readouts[k] = static_cast<float>(c.readouts[k]);
  return p;
}

bool sound(const TensorSums& sums) {
  return std::isfinite(sums.new_squared) && std::isfinite(sums.second_moment);
}

void repair_(const at::Tensor& tensor) {
  if (tensor.defined()) tensor.copy_(at::where(at::isfinite(tensor), tensor, 0.0));
}

/// What its coordinates are multiplied with when a tensor moves along Adam's direction, or, for a
/// matrix without a second moment, along its momentum, which is then written to `direction`.
double plain_direction(const TensorStepItem& item, float* direction) {
  repair_(item.momentum);
  repair_(item.second_moment);
  if (item.rows == 0) return 1.0;
  if (item.second_moment.defined()) return kDirectionRms;
  const int64_t size = item.param.numel();
  const float* momentum = item.momentum.const_data_ptr<float>();
  double squares = 0.0;
  for (int64_t i = 0; i < size; ++i) {
    direction[i] = momentum[i];
    squares += static_cast<double>(momentum[i]) * momentum[i];
  }
  return squares > 0.0 ? kDirectionRms / std::sqrt(squares / static_cast<double>(size)) : 0.0;
}

/// Which tensors leave their own direction for the plain one, and its scale.
struct PlainDirections {
  std::vector<char> taken;
  std::vector<double> scales;
};

PlainDirections plain_directions(const std::vector<TensorStepItem>& items,
                                 const std::vector<TensorCoefficients>& coefficients,
                                 const std::vector<TensorSums>& sums, Directions& directions) {
  PlainDirections plain{std::vector<char>(items.size()), std::vector<double>(items.size())};
  for (size_t i = 0; i < items.size(); ++i) {
    const bool matrix = directions.offsets[i] >= 0 && items[i].param.numel() > 0;
    float* direction = matrix ? directions.values.data() + directions.offsets[i] : nullptr;
    // A matrix that is not finite has become NaN throughout.
    const bool broken = matrix && std::isnan(*direction);
    plain.taken[i] = coefficients[i].plain || broken || (!sums.empty() && !sound(sums[i]));
    if (plain.taken[i]) plain.scales[i] = plain_direction(items[i], direction);
  }
  return plain;
}

}  // namespace

std::vector<TensorSums> update_moments_(const std::vector<TensorStepItem>& items,
                                        const std::vector<TensorCoefficients>& coefficients,
                                        bool with_sums) {
  const std::vector<Chunk> chunks = split(items);
  std::vector<kernels::ChunkSums> partial(with_sums ? chunks.size() : 0);
  for_each_chunk(chunks, [&](int64_t c, const Chunk& chunk) {
    const TensorStepItem& item = items[chunk.item];
    const TensorCoefficients& coefficient = coefficients[chunk.item];
    kernels::update_moments(
        {data(item.grad, chunk.begin), data(item.param, chunk.begin),
         data(item.momentum, chunk.begin), data(item.second_moment, chunk.begin), chunk.size,
         static_cast<float>(coefficient.momentum_decay),
         static_cast<float>(coefficient.second_decay), with_sums ? &partial[c] : nullptr});
  });
  if (!with_sums) return {};
  std::vector<TensorSums> sums(items.size());
  for (size_t c = 0; c < chunks.size(); ++c) sums[chunks[c].item] += partial[c];
  return sums;
}

int64_t apply_directions_(const std::vector<TensorStepItem>& items,
                          const std::vector<TensorCoefficients>& coefficients,
                          const std::vector<TensorSums>& sums) {
  thread_local Directions directions;
  // Worker threads have to see this thread's buffers, not their own.
  Directions& own = directions;
  own.layout(items);
  for_each_chunk(split(items, true), [&](int64_t, const Chunk& chunk) {
    const TensorStepItem& item = items[chunk.item];
    kernels::blend_direction({data(item.grad, chunk.begin), data(item.momentum, chunk.begin),
                              own.values.data() + own.offsets[chunk.item] + chunk.begin, chunk.size,
                              static_cast<float>(coefficients[chunk.item].blend)});
  });
  orthogonalize_(own.matrices.data(), static_cast<int64_t>(own.matrices.size()));
  PlainDirections plain = plain_directions(items, coefficients, sums, own);
  const std::vector<Chunk> chunks = split(items);
  std::vector<int64_t> skipped(chunks.size());
  for_each_chunk(chunks, [&](int64_t c, const Chunk& chunk) {
    const TensorStepItem& item = items[chunk.item];
    const int64_t size = item.param.numel();
    kernels::ApplyParams p = apply_params(item, coefficients[chunk.item], chunk);
    p.skipped = &skipped[c];
    const bool replaced = plain.taken[chunk.item];
    if (replaced) {
      p.scale = static_cast<float>(plain.scales[chunk.item]);
      p.corrected = false;
    } else if (item.rows > 0) {
      const int64_t longer = std::max(item.rows, size / item.rows);
      p.scale = static_cast<float>(kDirectionRms * std::sqrt(static_cast<double>(longer)));
    }
    if (item.rows > 0 && !(replaced && item.second_moment.defined())) {
      p.direction = own.values.data() + own.offsets[chunk.item] + chunk.begin;
    }
    if (!sums.empty()) {
      p.mean_second_moment =
          p.second_correction * static_cast<float>(sums[chunk.item].second_moment / size);
    }
    kernels::apply_direction(p);
  });
  for (size_t c = 0; c < chunks.size(); ++c) {
    if (skipped[c] == 0) continue;
    plain.taken[chunks[c].item] = 1;
    repair_(items[chunks[c].item].momentum);
    repair_(items[chunks[c].item].second_moment);
  }
  return std::count(plain.taken.begin(), plain.taken.end(), 1);
}

}  // namespace mnemosyne::ops
