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
}

template <bool kDirection, bool kCorrected>
void apply(const ApplyParams p) {
  const float keep = 1.0f - p.decay;
#pragma GCC ivdep
  for (int64_t i = 0; i < p.size; ++i) {
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
    p.param[i] = keep * p.param[i] - p.step * update;
  }
}

void apply_direction_only(const ApplyParams p) {
  const float keep = 1.0f - p.decay, step = p.step * p.scale;
#pragma GCC ivdep
  for (int64_t i = 0; i < p.size; ++i) {
    p.param[i] = keep * p.param[i] - step * p.direction[i];
  }
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
