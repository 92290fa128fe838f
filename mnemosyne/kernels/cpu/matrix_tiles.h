#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

/// Small building blocks of dense float32 products, for the translation unit that includes them.
///
/// Letters: W lanes of a vector, P = V W columns of a panel (V = 1 or 2), R rows of a tile, K
/// terms. A matrix in panels is stored [columns / P][rows][P], so that a tile reads contiguous
/// rows.
namespace mnemosyne::kernels::CPU_CAPABILITY {
namespace {

#if defined(CPU_CAPABILITY_AVX512)
constexpr int kLanes = 16;
constexpr int kTileRows = 8;
#elif defined(CPU_CAPABILITY_AVX2)
constexpr int kLanes = 8;
constexpr int kTileRows = 4;
#else
constexpr int kLanes = 4;
constexpr int kTileRows = 4;
#endif

typedef float Vector __attribute__((vector_size(kLanes * sizeof(float))));

inline Vector load(const float* p) {
  Vector v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

inline void store(float* p, Vector v) { std::memcpy(p, &v, sizeof(v)); }

inline Vector broadcast(float x) { return x - Vector{}; }

inline float sum(Vector v) {
  alignas(64) float x[kLanes];
  store(x, v);
#pragma GCC unroll 4
  for (int half = kLanes / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) x[i] += x[i + half];
  }
  return x[0];
}

constexpr int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

template <int... I>
inline void interleave(Vector a, Vector b, Vector& low, Vector& high,
                       std::integer_sequence<int, I...>) {
  low = __builtin_shufflevector(a, b, (I / 2 + I % 2 * kLanes)...);
  high = __builtin_shufflevector(a, b, (kLanes / 2 + I / 2 + I % 2 * kLanes)...);
}

/// Transposes W x W in registers: log2(W) perfect shuffles of the rows.
inline void transpose(Vector (&rows)[kLanes]) {
#pragma GCC unroll 4
  for (int stage = 1; stage < kLanes; stage *= 2) {
    Vector next[kLanes];
#pragma GCC unroll 8
    for (int i = 0; i < kLanes / 2; ++i) {
      interleave(rows[i], rows[i + kLanes / 2], next[2 * i], next[2 * i + 1],
                 std::make_integer_sequence<int, kLanes>());
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) rows[i] = next[i];
  }
}

/// to[j][i] = scale from[i][j] for i, j < W; rows of `from` beyond `count` count as zero.
inline void transpose_block(const float* from, int64_t from_stride, float* to, int64_t to_stride,
                            float scale = 1, int64_t count = kLanes) {
  Vector rows[kLanes];
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    rows[i] = i < count ? load(from + i * from_stride) * scale : Vector{};
  }
  transpose(rows);
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) store(to + i * to_stride, rows[i]);
}

enum class Accumulate { kSet, kAdd, kSubtract };

/// c [R, P] (=, +=, -=) sum_k a(k, r) b[k][0..P), where a(k, r) is a[k * lda + r], or a[r * lda +
/// k] with kAByRows.
template <int V, Accumulate mode, bool kAByRows = false>
inline void tile(int64_t num_terms, const float* __restrict a, int64_t lda,
                 const float* __restrict b, int64_t ldb, float* __restrict c, int64_t ldc) {
  Vector sums[kTileRows][V];
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      sums[r][v] = mode == Accumulate::kSet ? Vector{} : load(c + r * ldc + v * kLanes);
    }
  }
  for (int64_t k = 0; k < num_terms; ++k) {
    Vector row[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) row[v] = load(b + k * ldb + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kTileRows; ++r) {
      const Vector x = broadcast(kAByRows ? a[r * lda + k] : a[k * lda + r]);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) {
        sums[r][v] =
            mode == Accumulate::kSubtract ? sums[r][v] - x * row[v] : sums[r][v] + x * row[v];
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) store(c + r * ldc + v * kLanes, sums[r][v]);
  }
}

}  // namespace
}  // namespace mnemosyne::kernels::CPU_CAPABILITY
