#pragma once

#include <ATen/cpu/vec/vec.h>

#include "mnemosyne/kernels/cpu/arena.h"
#include "mnemosyne/kernels/memory_step.h"

// What forward and backward share: one chunk of coordinates, stored as rows of scratch memory with
// the coordinates along the vector lanes. Numbers in comments are those of
// ops/memory_step/memory_step.h.

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

/// Asks for what the next chunk reads in the place of `at`: the rows of a memory are far apart, and
/// there are more of them than the processor follows by itself.
inline void prefetch(const float* at) { __builtin_prefetch(at + kMemoryChunk); }

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

inline Rows take_rows(Arena& arena, int count) {
  return {arena.take(int64_t{count} * kMemoryChunk)};
}

/// The rows of the forward step, and the coordinates of the chunk in the tensor.
struct Chunk {
  int64_t begin;
  int count;   // coordinates
  int padded;  // count rounded up to two vectors; padding lanes are zeros on input
  Rows grad, token, decoder, mean, size;

  Chunk(const MemoryStepModel& m, Arena& arena)
      : begin(0),
        count(0),
        padded(0),
        grad(take_rows(arena, 1)),
        token(take_rows(arena, kMemoryToken)),
        decoder(take_rows(arena, memory_decoder_rows(m))),
        mean(take_rows(arena, m.heads)),
        size(take_rows(arena, m.heads)) {}

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
  const Vec grad_scale(*p.grad_scale), param_scale(*p.param_scale), limit(kLargestGradient);
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

/// Feature map and, where they are not 0, the sizes D and M known to the compiler: the usual ones
/// then live in registers.
template <MemoryFeatures kFeatures, int kKeyDim = 0, int kOmegas = 0>
struct Sizes {
  static constexpr MemoryFeatures kMap = kFeatures;
  static constexpr bool kConstant = kMap == MemoryFeatures::kConstant;
  static constexpr bool kTwice = kMap == MemoryFeatures::kHypPlus || kMap == MemoryFeatures::kTrig;
  static constexpr int kMaxKeyDim = kKeyDim > 0 ? kKeyDim : kMemoryMaxKeyDim;
  static constexpr int kMaxFeatures =
      kConstant ? 1 : (kOmegas > 0 ? (kTwice ? 2 : 1) * kOmegas : kMemoryMaxFeatures);

  static int key_dim(const MemoryStepModel& m) { return kKeyDim > 0 ? kKeyDim : m.key_dim; }
  static int omegas(const MemoryStepModel& m) { return kOmegas > 0 ? kOmegas : m.omegas; }
  static int features(const MemoryStepModel& m) {
    return kConstant || kOmegas > 0 ? kMaxFeatures : m.features;
  }
};

/// Calls function(Sizes<...>()) with the best fit for the model.
template <typename Function>
inline void with_sizes(const MemoryStepModel& m, const Function& function) {
  switch (m.map) {
    case MemoryFeatures::kConstant:
      return function(Sizes<MemoryFeatures::kConstant>());
    case MemoryFeatures::kFavorPlus:
      if (m.key_dim == 4 && m.omegas == 4)
        return function(Sizes<MemoryFeatures::kFavorPlus, 4, 4>());
      return function(Sizes<MemoryFeatures::kFavorPlus>());
    case MemoryFeatures::kHypPlus:
      if (m.key_dim == 4 && m.omegas == 1) return function(Sizes<MemoryFeatures::kHypPlus, 4, 1>());
      if (m.key_dim == 4 && m.omegas == 2) return function(Sizes<MemoryFeatures::kHypPlus, 4, 2>());
      return function(Sizes<MemoryFeatures::kHypPlus>());
    case MemoryFeatures::kTrig:
      return function(Sizes<MemoryFeatures::kTrig>());
    case MemoryFeatures::kRelu:
      return function(Sizes<MemoryFeatures::kRelu>());
  }
}

/// A key or query of one head before phi: y = W x and 1 / sqrt(1 + |y|^2).
template <typename S>
struct Address {
  Vec y[S::kMaxKeyDim];
  Vec inverse_length;

  Address(const MemoryStepModel& m, const float* weight, const Vec* token) {
    Vec square(1.0f);
    for (int d = 0; d < S::key_dim(m); ++d) {
      const float* w = weight + d * kMemoryToken;
      y[d] = at::vec::fmadd(Vec(w[0]), token[0], Vec(w[3]));
      y[d] = at::vec::fmadd(Vec(w[1]), token[1], y[d]);
      y[d] = at::vec::fmadd(Vec(w[2]), token[2], y[d]);
      square = at::vec::fmadd(y[d], y[d], square);
    }
    inverse_length = reciprocal_sqrt(square);
  }
};

template <typename S>
inline Vec project(const MemoryStepModel& m, int i, const Vec* x) {
  const int dim = S::key_dim(m);
  Vec sum(0.0f);
  for (int d = 0; d < dim; ++d) sum = at::vec::fmadd(Vec(m.omega[i * dim + d]), x[d], sum);
  return sum;
}

template <typename S>
inline float feature_scale(const MemoryStepModel& m) {
  const bool twice = S::kMap == MemoryFeatures::kHypPlus;
  return 1.0f / __builtin_sqrtf(static_cast<float>(twice ? 2 * S::omegas(m) : S::omegas(m)));
}

/// phi of the point `radius` y / sqrt(1 + |y|^2).
template <typename S>
inline void features(const MemoryStepModel& m, const Address<S>& address, float radius, Vec* phi) {
  const Vec scale(feature_scale<S>(m));
  const Vec length = Vec(radius) * address.inverse_length;
  const int omegas = S::omegas(m);
  Vec x[S::kMaxKeyDim];
  Vec half_norm(0.0f);
  for (int d = 0; d < S::key_dim(m); ++d) {
    x[d] = address.y[d] * length;
    half_norm = at::vec::fmadd(x[d] * Vec(0.5f), x[d], half_norm);
  }
  const Vec envelope = S::kMap == MemoryFeatures::kTrig ? half_norm.exp() * scale : scale;
  for (int i = 0; i < omegas; ++i) {
    const Vec projection = project<S>(m, i, x);
    if constexpr (S::kMap == MemoryFeatures::kFavorPlus) {
      phi[i] = (projection - half_norm).exp_u20() * scale;
    } else if constexpr (S::kMap == MemoryFeatures::kHypPlus) {
      phi[i] = (projection - half_norm).exp_u20() * scale;
      phi[omegas + i] = (projection.neg() - half_norm).exp_u20() * scale;
    } else if constexpr (S::kMap == MemoryFeatures::kTrig) {
      phi[i] = projection.cos() * envelope;
      phi[omegas + i] = projection.sin() * envelope;
    } else {
      phi[i] = at::vec::fmadd(at::vec::maximum(projection, Vec(0.0f)), scale, Vec(kReluOffset));
    }
  }
}

/// 3. Features of key and query of head h for the vector of coordinates at i.
template <typename S>
inline void key_and_query(const MemoryStepModel& m, const Chunk& chunk, int h, int i, Vec* key,
                          Vec* query) {
  if constexpr (S::kConstant) {
    key[0] = query[0] = Vec(1.0f);
  } else {
    const int offset = h * S::key_dim(m) * kMemoryToken;
    const Vec token[3] = {load(chunk.token[0] + i), load(chunk.token[1] + i),
                          load(chunk.token[2] + i)};
    features<S>(m, Address<S>(m, m.key + offset, token), m.radius[h], key);
    features<S>(m, Address<S>(m, m.query + offset, token), m.radius[h], query);
  }
}

template <typename S>
constexpr float normaliser_floor() {
  return S::kMap == MemoryFeatures::kTrig ? 0.1f : 1e-12f;
}

/// 7. Scale-free read-outs, from the rows `mean` and `size`.
inline void fill_decoder_inputs(const MemoryStepParams& p, const Chunk& chunk) {
  const int heads = p.model.heads;
  for (int i = 0; i < chunk.padded; i += kWidth) {
    const Vec base = load(chunk.size[p.model.variance_head] + i);
    const Vec inverse = Vec(1.0f) / (base + Vec(*p.eps));
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
