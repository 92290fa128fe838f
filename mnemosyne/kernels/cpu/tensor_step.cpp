#include "mnemosyne/kernels/tensor_step.h"

#include <cmath>

namespace mnemosyne::kernels::CPU_CAPABILITY {
namespace {

// Parameter blocks are passed by value: stores to the tensors then cannot alias them.

// Independent partial sums, so that the compiler may keep them in one or two vector registers.
constexpr int kLanes = 16;

struct Lanes {
  float values[kLanes] = {};

  double total() const {
    double sum = 0.0;
    for (int lane = 0; lane < kLanes; ++lane) sum += values[lane];
    return sum;
  }
};

// As an integer, which orders them; vectors have its maximum. From that of infinity on not finite.
inline int32_t magnitude_bits(float x) { return __builtin_bit_cast(int32_t, x) & 0x7FFFFFFF; }
constexpr int32_t kInfinityBits = 0x7F800000;

inline float softsign(float x) { return x / (1.0f + std::fabs(x)); }

template <bool kSecond>
void moments_without_sums(const MomentsParams p) {
  const float keep = p.momentum_decay, add = 1.0f - keep;
  const float keep2 = p.second_decay, add2 = 1.0f - keep2;
#pragma GCC ivdep
  for (int64_t i = 0; i < p.size; ++i) {
    const float g = p.grad[i];
    p.momentum[i] = keep * p.momentum[i] + add * g;
    if constexpr (kSecond) p.second_moment[i] = keep2 * p.second_moment[i] + add2 * g * g;
  }
}

// The sums of a chunk whose squares are too large for float, after the step: the old momentum is
// read back from the new one.
void sums_in_double(const MomentsParams& p) {
  const double keep = p.momentum_decay, add = 1.0 - keep;
  ChunkSums sums = {};
  for (int64_t i = 0; i < p.size; ++i) {
    const double g = p.grad[i], next = p.momentum[i], x = p.param[i];
    const double old = keep > 0 ? (next - add * g) / keep : 0.0;
    sums.grad_dot_momentum += g * old;
    sums.grad_squared += g * g;
    sums.old_squared += old * old;
    sums.new_squared += next * next;
    sums.param_squared += x * x;
    sums.second_moment += p.second_moment[i];
    sums.zeros += g == 0.0 ? 1.0 : 0.0;
  }
  *p.sums = sums;
}

// One coordinate, whose contributions to the sums go to `lane`.
struct MomentsWithSums {
  Lanes dot, grad, old_m, new_m, param, second, zeros;

  inline void add(const MomentsParams& p, int64_t i, int lane) {
    const float g = p.grad[i], m = p.momentum[i], x = p.param[i];
    const float next = p.momentum_decay * m + (1.0f - p.momentum_decay) * g;
    const float v = p.second_decay * p.second_moment[i] + (1.0f - p.second_decay) * g * g;
    p.momentum[i] = next;
    p.second_moment[i] = v;
    dot.values[lane] += g * m;
    grad.values[lane] += g * g;
    old_m.values[lane] += m * m;
    new_m.values[lane] += next * next;
    param.values[lane] += x * x;
    second.values[lane] += v;
    zeros.values[lane] += g == 0.0f ? 1.0f : 0.0f;
  }
};

void moments_with_sums(const MomentsParams p) {
  MomentsWithSums sums;
  int64_t i = 0;
  for (; i + kLanes <= p.size; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) sums.add(p, i + lane, lane);
  }
  for (int lane = 0; i < p.size; ++i, ++lane) sums.add(p, i, lane);
  *p.sums = {sums.dot.total(),   sums.grad.total(),   sums.old_m.total(), sums.new_m.total(),
             sums.param.total(), sums.second.total(), sums.zeros.total()};
  const double all = p.sums->grad_dot_momentum + p.sums->grad_squared + p.sums->old_squared +
                     p.sums->new_squared + p.sums->param_squared + p.sums->second_moment;
  if (!(all - all == 0)) sums_in_double(p);
}

template <bool kDirection, bool kCorrected>
inline float update_of(const ApplyParams& p, int64_t i) {
  const float v = p.second_correction * p.second_moment[i];
  const float inverse = 1.0f / (std::sqrt(v) + p.eps);
  const float adam = p.momentum_correction * p.momentum[i] * inverse;
  const float base = kDirection ? p.scale * p.direction[i] : p.scale * adam;
  float update = kDirection ? base + p.mixture * (p.rms * adam - base) : base;
  if constexpr (kCorrected) {
    const float u = kDirection ? base / p.rms : base;
    const float g = p.grad[i] * inverse;
    const float h = p.readouts[0] * softsign(u * adam) + p.readouts[1] * softsign(u * g) +
                    p.readouts[2] * softsign(std::fabs(adam)) +
                    p.readouts[3] * softsign(std::fabs(u)) +
                    p.readouts[4] * (v / (v + p.mean_second_moment + 1e-30f) - 0.5f);
    update *= 1.0f + p.bound * softsign(h);
  }
  return update;
}

// Coordinates that were finite and are no longer stay where they were.
void restore(const ApplyParams& p, float* param, const float* old, int64_t size) {
  bool any = false;
  for (int64_t i = 0; i < size; ++i) {
    if (magnitude_bits(param[i]) < kInfinityBits) continue;
    param[i] = old[i];
    any = any || magnitude_bits(old[i]) < kInfinityBits;
  }
  *p.skipped += any ? 1 : 0;
}

// p <- keep p - step update, in pieces that stay in the first cache.
template <typename Update>
void write(const ApplyParams p, float step, const Update& update) {
  constexpr int64_t kPiece = 512;
  const float keep = 1.0f - p.decay;
  float old[kPiece];
  for (int64_t begin = 0; begin < p.size; begin += kPiece) {
    const int64_t size = p.size - begin < kPiece ? p.size - begin : kPiece;
    float* param = p.param + begin;
    int32_t largest = 0;
#pragma GCC ivdep
    for (int64_t i = 0; i < size; ++i) {
      old[i] = param[i];
      const float next = keep * param[i] - step * update(p, begin + i);
      param[i] = next;
      const int32_t magnitude = magnitude_bits(next);
      largest = magnitude > largest ? magnitude : largest;
    }
    if (largest >= kInfinityBits) restore(p, param, old, size);
  }
}

template <bool kDirection, bool kCorrected>
void apply(const ApplyParams& p) {
  write(p, p.step,
        [](const ApplyParams& q, int64_t i) { return update_of<kDirection, kCorrected>(q, i); });
}

void apply_direction_only(const ApplyParams& p) {
  write(p, p.step * p.scale, [](const ApplyParams& q, int64_t i) { return q.direction[i]; });
}

}  // namespace

void update_moments(const MomentsParams& params) {
  if (params.sums != nullptr) return moments_with_sums(params);
  return params.second_moment != nullptr ? moments_without_sums<true>(params)
                                         : moments_without_sums<false>(params);
}

void blend_direction(const BlendParams& params) {
  const BlendParams p = params;
#pragma GCC ivdep
  for (int64_t i = 0; i < p.size; ++i) {
    p.direction[i] = p.momentum[i] + p.blend * (p.grad[i] - p.momentum[i]);
  }
}

void apply_direction(const ApplyParams& params) {
  if (params.second_moment == nullptr) return apply_direction_only(params);
  const bool direction = params.direction != nullptr;
  if (params.corrected) return direction ? apply<true, true>(params) : apply<false, true>(params);
  return direction ? apply<true, false>(params) : apply<false, false>(params);
}

}  // namespace mnemosyne::kernels::CPU_CAPABILITY
