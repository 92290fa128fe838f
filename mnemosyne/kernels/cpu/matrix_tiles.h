#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

/// Small building blocks of dense products in float32, and in float64 where that is asked for, for
/// the translation unit that includes them.
///
/// Letters: T float or double, W lanes of a vector of them, P = V W columns of a panel (V = 1 or
/// 2), R rows of a tile, K terms. A matrix in panels is stored [columns / P][rows][P], so that a
/// tile reads contiguous rows.
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
typedef double DoubleVector __attribute__((vector_size(kLanes * sizeof(float))));

/// W, by the type.
template <typename T>
constexpr int kLanesOf = static_cast<int>(kLanes * sizeof(float) / sizeof(T));

inline Vector load(const float* p) {
  Vector v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

inline DoubleVector load(const double* p) {
  DoubleVector v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

inline void store(float* p, Vector v) { std::memcpy(p, &v, sizeof(v)); }
inline void store(double* p, DoubleVector v) { std::memcpy(p, &v, sizeof(v)); }

inline Vector broadcast(float x) { return x - Vector{}; }

template <typename T>
using VectorOf = decltype(load(static_cast<const T*>(nullptr)));

template <typename T>
inline T sum_of(VectorOf<T> v) {
  constexpr int W = kLanesOf<T>;
  alignas(64) T x[W];
  store(x, v);
#pragma GCC unroll 4
  for (int half = W / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) x[i] += x[i + half];
  }
  return x[0];
}

inline float sum(Vector v) { return sum_of<float>(v); }
inline double sum(DoubleVector v) { return sum_of<double>(v); }

constexpr int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

template <typename AnyVector, int... I>
inline void interleave(AnyVector a, AnyVector b, AnyVector& low, AnyVector& high,
                       std::integer_sequence<int, I...>) {
  constexpr int W = sizeof...(I);
  low = __builtin_shufflevector(a, b, (I / 2 + I % 2 * W)...);
  high = __builtin_shufflevector(a, b, (W / 2 + I / 2 + I % 2 * W)...);
}

/// Transposes W x W in registers: log2(W) perfect shuffles of the rows.
template <typename AnyVector, int W>
inline void transpose(AnyVector (&rows)[W]) {
#pragma GCC unroll 4
  for (int stage = 1; stage < W; stage *= 2) {
    AnyVector next[W];
#pragma GCC unroll 8
    for (int i = 0; i < W / 2; ++i) {
      interleave(rows[i], rows[i + W / 2], next[2 * i], next[2 * i + 1],
                 std::make_integer_sequence<int, W>());
    }
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) rows[i] = next[i];
  }
}

/// to[j][i] = scale from[i][j] for i, j < W; rows of `from` beyond `count` count as zero.
template <typename T>
inline void transpose_block(const T* from, int64_t from_stride, T* to, int64_t to_stride,
                            T scale = 1, int64_t count = kLanesOf<T>) {
  constexpr int W = kLanesOf<T>;
  VectorOf<T> rows[W];
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) {
    rows[i] = i < count ? load(from + i * from_stride) * scale : VectorOf<T>{};
  }
  transpose(rows);
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) store(to + i * to_stride, rows[i]);
}

/// kAdd and kSubtract go on from what is there, term by term; kAddSum adds the sum of the terms.
enum class Accumulate { kSet, kAdd, kSubtract, kAddSum };

/// c [R, P] (=, +=, -=) sum_k a(k, r) b[k][0..P), where a(k, r) is a[k * lda + r], or a[r * lda +
/// k] with kAByRows. Never inlined: in a large function the sums do not stay in registers.
template <int V, Accumulate mode, bool kAByRows = false, typename T>
[[gnu::noinline]] void tile(int64_t num_terms, const T* __restrict a, int64_t lda,
                            const T* __restrict b, int64_t ldb, T* __restrict c, int64_t ldc) {
  constexpr int W = kLanesOf<T>;
  constexpr bool from_zero = mode == Accumulate::kSet || mode == Accumulate::kAddSum;
  VectorOf<T> sums[kTileRows][V];
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      sums[r][v] = from_zero ? VectorOf<T>{} : load(c + r * ldc + v * W);
    }
  }
  for (int64_t k = 0; k < num_terms; ++k) {
    VectorOf<T> row[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) row[v] = load(b + k * ldb + v * W);
#pragma GCC unroll 8
    for (int r = 0; r < kTileRows; ++r) {
      const VectorOf<T> x = (kAByRows ? a[r * lda + k] : a[k * lda + r]) - VectorOf<T>{};
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
    for (int v = 0; v < V; ++v) {
      T* at = c + r * ldc + v * W;
      store(at, mode == Accumulate::kAddSum ? load(at) + sums[r][v] : sums[r][v]);
    }
  }
}

}  // namespace
}  // namespace mnemosyne::kernels::CPU_CAPABILITY
