#pragma once

#include <ATen/cpu/vec/vec.h>

#include "mnemosyne/kernels/memory_step.h"

// What forward and backward share: one chunk of coordinates, stored as rows of scratch memory with
// the coordinates along the vector lanes. Numbers in comments are those of ops/memory_step.h.

namespace mnemosyne::kernels::CPU_CAPABILITY {

using Vec = at::vec::Vectorized<float>;

constexpr int kWidth = Vec::size();
static_assert(kWidth <= kMemoryLanes && kMemoryChunk % (2 * kWidth) == 0);

constexpr float kLargestGradient = 1e17f;
constexpr float kSmallestVariance = 1e-36f;
constexpr float kReluOffset = 1e-3f;

inline Vec load(const float* from, int count = kWidth) {
  return count == kWidth ? Vec::loadu(from) : Vec::loadu(from, count);
}

inline void store(float* to, const Vec& value, int count = kWidth) {
  if (count == kWidth) {
    value.store(to);
  } else {
    value.store(to, count);
  }
}

inline Vec reciprocal_sqrt(const Vec& x) { return Vec(1.0f) / x.sqrt(); }

inline Vec squash(const Vec& x) { return x / at::vec::fmadd(x, x, Vec(1.0f)).sqrt(); }

/// d squash(x) / dx = (1 + x^2)^(-3/2).
inline Vec squash_slope(const Vec& x) {
  const Vec n = reciprocal_sqrt(at::vec::fmadd(x, x, Vec(1.0f)));
  return n * n * n;
}

/// Rows of scratch memory, one float a coordinate of the chunk.
struct Rows {
  float* base;

  float* operator[](int row) const { return base + row * kMemoryChunk; }
};

/// The rows of the forward step, and the coordinates of the chunk in the tensor.
struct Chunk {
  int64_t begin;
  int count;   // coordinates
  int padded;  // count rounded up to two vectors; padding lanes are zeros on input
  Rows grad, token, decoder, mean, size;

  Chunk(const MemoryStepModel& m, float* scratch)
      : begin(0),
        count(0),
        padded(0),
        grad{scratch},
        token{grad[1]},
        decoder{token[kMemoryToken]},
        mean{decoder[memory_decoder_rows(m)]},
        size{mean[m.heads]} {}

  void move_to(int64_t first, int64_t end) {
    begin = first;
    count = static_cast<int>(end - first < kMemoryChunk ? end - first : kMemoryChunk);
    padded = (count + 2 * kWidth - 1) / (2 * kWidth) * (2 * kWidth);
  }

  /// Lanes of the vector at i that are coordinates, 0 to kWidth.
  int lanes(int i) const {
    const int left = count - i;
    return left < 0 ? 0 : (left < kWidth ? left : kWidth);
  }
};

/// 1. and 2.
inline void load_tokens(const MemoryStepParams& p, const Chunk& chunk) {
  const Vec grad_scale(p.grad_scale), param_scale(p.param_scale), limit(kLargestGradient);
  for (int i = 0; i < chunk.padded; i += kWidth) {
    const int lanes = chunk.lanes(i);
    const Vec raw = load(p.grad + chunk.begin + i, lanes);
    const Vec grad = at::vec::minimum(at::vec::maximum(raw, limit.neg()), limit);
    const Vec a = grad * grad_scale;
    const Vec log_size = (a.abs() + Vec(1e-9f)).log() * Vec(0.1f);
    const Vec clipped = at::vec::minimum(at::vec::maximum(log_size, Vec(-1.0f)), Vec(1.0f));
    const Vec b = load(p.param + chunk.begin + i, lanes) * param_scale;
    const Vec token[3] = {squash(a), clipped, squash(b)};
    store(chunk.grad[0] + i, grad);
    for (int f = 0; f < 3; ++f) {
      store(chunk.token[f] + i, token[f]);
      store(chunk.decoder[f] + i, token[f]);
    }
    store(chunk.token[3] + i, Vec(1.0f));
  }
}

/// A key or query of one head before phi: y = W x and 1 / sqrt(1 + |y|^2).
struct Address {
  Vec y[kMemoryMaxKeyDim];
  Vec inverse_length;

  Address(const MemoryStepModel& m, const float* weight, const Vec* token) {
    Vec square(1.0f);
    for (int d = 0; d < m.key_dim; ++d) {
      const float* w = weight + d * kMemoryToken;
      y[d] = at::vec::fmadd(Vec(w[0]), token[0], Vec(w[3]));
      y[d] = at::vec::fmadd(Vec(w[1]), token[1], y[d]);
      y[d] = at::vec::fmadd(Vec(w[2]), token[2], y[d]);
      square = at::vec::fmadd(y[d], y[d], square);
    }
    inverse_length = reciprocal_sqrt(square);
  }
};

inline Vec project(const MemoryStepModel& m, int i, const Vec* x) {
  Vec sum(0.0f);
  for (int d = 0; d < m.key_dim; ++d)
    sum = at::vec::fmadd(Vec(m.omega[i * m.key_dim + d]), x[d], sum);
  return sum;
}

template <MemoryFeatures kMap>
inline float feature_scale(const MemoryStepModel& m) {
  const float count =
      static_cast<float>(kMap == MemoryFeatures::kHypPlus ? 2 * m.omegas : m.omegas);
  return 1.0f / __builtin_sqrtf(count);
}

/// phi of the point `radius` y / sqrt(1 + |y|^2).
template <MemoryFeatures kMap>
inline void features(const MemoryStepModel& m, const Address& address, float radius, Vec* phi) {
  if constexpr (kMap == MemoryFeatures::kConstant) {
    phi[0] = Vec(1.0f);
    return;
  }
  const Vec scale(feature_scale<kMap>(m));
  const Vec length = Vec(radius) * address.inverse_length;
  Vec x[kMemoryMaxKeyDim];
  Vec half_norm(0.0f);
  for (int d = 0; d < m.key_dim; ++d) {
    x[d] = address.y[d] * length;
    half_norm = at::vec::fmadd(x[d] * Vec(0.5f), x[d], half_norm);
  }
  const Vec envelope = kMap == MemoryFeatures::kTrig ? half_norm.exp() * scale : scale;
  for (int i = 0; i < m.omegas; ++i) {
    const Vec projection = project(m, i, x);
    if constexpr (kMap == MemoryFeatures::kFavorPlus) {
      phi[i] = (projection - half_norm).exp() * scale;
    } else if constexpr (kMap == MemoryFeatures::kHypPlus) {
      phi[i] = (projection - half_norm).exp() * scale;
      phi[m.omegas + i] = (projection.neg() - half_norm).exp() * scale;
    } else if constexpr (kMap == MemoryFeatures::kTrig) {
      phi[i] = projection.cos() * envelope;
      phi[m.omegas + i] = projection.sin() * envelope;
    } else {
      phi[i] = at::vec::fmadd(at::vec::maximum(projection, Vec(0.0f)), scale, Vec(kReluOffset));
    }
  }
}

template <MemoryFeatures kMap>
constexpr float normaliser_floor() {
  return kMap == MemoryFeatures::kTrig ? 0.1f : 1e-12f;
}

/// 7. Scale-free read-outs, from the rows `mean` and `size`.
inline void fill_decoder_inputs(const MemoryStepParams& p, const Chunk& chunk) {
  const int heads = p.model.heads;
  for (int i = 0; i < chunk.padded; i += kWidth) {
    const Vec base = load(chunk.size[p.model.variance_head] + i);
    const Vec inverse = Vec(1.0f) / (base + Vec(p.eps));
    store(chunk.decoder[3] + i, squash(load(chunk.grad[0] + i) * inverse));
    for (int h = 0; h < heads; ++h) {
      const Vec size = load(chunk.size[h] + i);
      store(chunk.decoder[4 + h] + i, squash(load(chunk.mean[h] + i) * inverse));
      store(chunk.decoder[4 + heads + h] + i, (size - base) / (size + base));
    }
  }
}

/// The hidden units of two vectors of coordinates: relu(hidden_weight z + hidden_bias) for unit j.
struct HiddenPair {
  Vec low, high;

  HiddenPair(const MemoryStepParams& p, const Chunk& chunk, int j, int i)
      : low(p.hidden_bias[j]), high(p.hidden_bias[j]) {
    const int inputs = memory_decoder_rows(p.model);
    const float* row = p.model.hidden_weight + j * inputs;
    const float* z = chunk.decoder[0] + i;
    for (int f = 0; f < inputs; ++f, z += kMemoryChunk) {
      const Vec weight(row[f]);
      low = at::vec::fmadd(weight, load(z), low);
      high = at::vec::fmadd(weight, load(z + kWidth), high);
    }
    low = at::vec::maximum(low, Vec(0.0f));
    high = at::vec::maximum(high, Vec(0.0f));
  }
};

}  // namespace mnemosyne::kernels::CPU_CAPABILITY
