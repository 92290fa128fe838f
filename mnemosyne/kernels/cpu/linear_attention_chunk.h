#pragma once

#include <ATen/cpu/vec/vec.h>

#include <cmath>
#include <cstdint>

#include "mnemosyne/kernels/cpu/arena.h"
#include "mnemosyne/kernels/cpu/matrix_tiles.h"
#include "mnemosyne/kernels/linear_attention.h"

/// What both passes of linear attention do to a chunk of tokens: products, rows, and the state.
///
/// Letters as in kernels/linear_attention.h; C = tokens of a chunk, n of them in use, nr = n
/// rounded up to whole tiles. Mp = padded features, Vp = padded values. A matrix of a chunk has C
/// rows in memory, of which those from n to nr are zero.
namespace mnemosyne::kernels::CPU_CAPABILITY {
namespace {

using Vec = at::vec::Vectorized<float>;
static_assert(kAttentionPadding % Vec::size() == 0 && kAttentionPadding % kLanes == 0);

/// Terms of a product at a time: their panel of the right factor stays in the first cache.
constexpr int64_t kTermBlock = 128;

/// Which part of a product is not known to be zero.
enum class Part { kAll, kLowerResult, kLowerLeft, kUpperLeft };

/// c [rows,columns] (=, +=) a b [terms,columns]; a(i, k) is a[i * lda + k] with kAByRows, else a[k
/// * lda + i]. Whole tiles: rows and columns are rounded up to them. kLowerResult leaves tiles
/// above the diagonal as they are; kLowerLeft and kUpperLeft skip terms beyond a tile on the
/// diagonal of a.
template <Accumulate mode, bool kAByRows, Part part = Part::kAll>
void product(int64_t rows, int64_t columns, int64_t terms, const float* a, int64_t lda,
             const float* b, int64_t ldb, float* c, int64_t ldc) {
  for (int64_t k = 0; k < terms; k += kTermBlock) {
    const int64_t end = k + kTermBlock < terms ? k + kTermBlock : terms;
    const bool set = mode == Accumulate::kSet && k == 0;
    for (int64_t j = 0; j < columns; j += 2 * kLanes) {
      const bool wide = j + kLanes < columns;
      for (int64_t i = part == Part::kLowerResult ? j / kTileRows * kTileRows : 0; i < rows;
           i += kTileRows) {
        const int64_t from = part == Part::kUpperLeft && i > k ? i : k;
        const int64_t to = part == Part::kLowerLeft && i + kTileRows < end ? i + kTileRows : end;
        const int64_t count = to > from ? to - from : 0;
        const float* left = a + (kAByRows ? i * lda + from : from * lda + i);
        const float* right = b + from * ldb + j;
        float* result = c + i * ldc + j;
        if (wide && set) {
          tile<2, Accumulate::kSet, kAByRows>(count, left, lda, right, ldb, result, ldc);
        } else if (wide) {
          tile<2, Accumulate::kAdd, kAByRows>(count, left, lda, right, ldb, result, ldc);
        } else if (set) {
          tile<1, Accumulate::kSet, kAByRows>(count, left, lda, right, ldb, result, ldc);
        } else {
          tile<1, Accumulate::kAdd, kAByRows>(count, left, lda, right, ldb, result, ldc);
        }
      }
    }
  }
}

/// to [columns,rows] <- from [rows,columns], both rounded up to whole vectors.
inline void transpose(int64_t rows, int64_t columns, const float* from, int64_t from_row, float* to,
                      int64_t to_row) {
  for (int64_t i = 0; i < rows; i += kLanes) {
    for (int64_t j = 0; j < columns; j += kLanes) {
      transpose_block(from + i * from_row + j, from_row, to + j * to_row + i, to_row);
    }
  }
}

template <int shift, int... I>
inline Vector rotated(Vector v, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(v, v, ((I + shift) % kLanes)...);
}

/// All lanes by a tree of `combine`, in registers.
template <int half = kLanes / 2, typename Combine>
inline float across(Vector v, const Combine& combine) {
  if constexpr (half == 0) {
    return v[0];
  } else {
    constexpr auto lanes = std::make_integer_sequence<int, kLanes>();
    return across<half / 2>(combine(v, rotated<half>(v, lanes)), combine);
  }
}

inline float sum_across(Vector v) {
  return across(v, [](Vector a, Vector b) { return a + b; });
}

inline float largest_across(Vector v) {
  return across(v, [](Vector a, Vector b) { return a > b ? a : b; });
}

inline int64_t whole_tiles(int64_t rows) { return round_up(rows, kTileRows); }

inline void fill(float* to, int64_t count, float value) {
  for (int64_t i = 0; i < count; ++i) to[i] = value;
}

inline void copy(float* to, const float* from, int64_t count) {
  std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
}

/// The factor that takes what is relative to `from` to what is relative to `to`; exactly one for
/// the same offset, whatever the library's exp does.
inline float rescaled(float from, float to) { return from == to ? 1.0f : std::exp(from - to); }

/// The sizes that follow from the parameters, and one item of the problem.
struct Shape {
  int64_t C, D, Dp, Dv, Vp, W, Wp, M, Mp, R;
  int64_t L, S, b, h, hk;
  bool pairs;

  explicit Shape(const LinearAttentionParams& p, int64_t item = 0)
      : C(attention_chunk(p.sizes.rank)),
        D(p.sizes.depth),
        Dp(attention_padded(D)),
        Dv(p.sizes.value_depth),
        Vp(attention_padded(Dv)),
        W(p.sizes.omegas),
        Wp(attention_padded(W)),
        M(attention_features_are_pairs(p.features) ? 2 * W : W),
        Mp(attention_padded_features(p.sizes, p.features)),
        R(p.sizes.rank),
        L(p.sizes.queries),
        S(p.sizes.keys),
        b(item / p.sizes.heads),
        h(item % p.sizes.heads),
        hk(h / (p.sizes.heads / p.sizes.key_heads)),
        pairs(attention_features_are_pairs(p.features)) {}
};

/// Tokens first to first + n of a sequence.
struct Span {
  int64_t first;
  int64_t n;
  int64_t rows;  ///< n in whole tiles.

  static Span at(int64_t first, int64_t length, int64_t chunk) {
    const int64_t n = length - first < chunk ? length - first : chunk;
    return {first, n, whole_tiles(n)};
  }
};

/// n rows of `width` floats to rows of `padded` ones, zero in the padding and in rows to nr, and
/// where `mask` [n] is false.
inline void load_rows(const AttentionRows& from, int64_t b, int64_t h, Span span, int64_t width,
                      int64_t padded, const bool* mask, float* to) {
  const float* row = from.data + b * from.batch + h * from.head + span.first * from.row;
  for (int64_t i = 0; i < span.rows; ++i, to += padded, row += from.row) {
    const int64_t count = i < span.n && (mask == nullptr || mask[i]) ? width : 0;
    if (count > 0) copy(to, row, count);
    if (count < padded) fill(to + count, padded - count, 0);
  }
}

/// The place of feature m of the caller in the layout of the kernel.
inline int64_t padded_feature(const Shape& s, int64_t m) { return m < s.W ? m : m - s.W + s.Wp; }

/// Sums [R,Mp,Vp] and normaliser [R,Mp] of a head.
struct State {
  float* sums;
  float* normalizer;
};

inline State take_state(const Shape& s, Arena& arena) {
  float* sums = arena.take(s.R * s.Mp * s.Vp);
  return {sums, arena.take(s.R * s.Mp)};
}

/// From the caller's [B,H,R,M,Dv] and [B,H,R,M]; zero if null.
inline void load_state(const Shape& s, int64_t heads, const float* sums, const float* normalizer,
                       State state) {
  fill(state.sums, s.R * s.Mp * s.Vp, 0);
  fill(state.normalizer, s.R * s.Mp, 0);
  if (sums == nullptr) return;
  for (int64_t r = 0; r < s.R; ++r) {
    const int64_t first = ((s.b * heads + s.h) * s.R + r) * s.M;
    for (int64_t m = 0; m < s.M; ++m) {
      const int64_t to = r * s.Mp + padded_feature(s, m);
      copy(state.sums + to * s.Vp, sums + (first + m) * s.Dv, s.Dv);
      state.normalizer[to] = normalizer[first + m];
    }
  }
}

inline void store_state(const Shape& s, int64_t heads, State state, float* sums,
                        float* normalizer) {
  for (int64_t r = 0; r < s.R; ++r) {
    const int64_t first = ((s.b * heads + s.h) * s.R + r) * s.M;
    for (int64_t m = 0; m < s.M; ++m) {
      const int64_t from = r * s.Mp + padded_feature(s, m);
      copy(sums + (first + m) * s.Dv, state.sums + from * s.Vp, s.Dv);
      normalizer[first + m] = state.normalizer[from];
    }
  }
}

/// The offset that a state starts with.
inline float first_offset(const Shape& s, const LinearAttentionParams& p) {
  if (!attention_features_have_offset(p.features)) return 0;
  return p.offset == nullptr ? kAttentionNoOffset : p.offset[s.b * p.sizes.heads + s.h];
}

/// to[i,:] = factors[i * R] from[i,:] for the rows of a chunk; those from n on become zero.
inline void scale_rows(Span span, int64_t width, const float* factors, int64_t rank,
                       const float* from, float* to) {
  for (int64_t i = 0; i < span.rows; ++i, from += width, to += width) {
    const float factor = i < span.n ? factors[i * rank] : 0.0f;
    for (int64_t m = 0; m < width; m += kLanes) store(to + m, load(from + m) * factor);
  }
}

inline float dot(int64_t width, const float* a, const float* b) {
  Vector total = {};
  for (int64_t m = 0; m < width; m += kLanes) total += load(a + m) * load(b + m);
  return sum_across(total);
}

inline float sum_of(int64_t width, const float* a) {
  Vector total = {};
  for (int64_t m = 0; m < width; m += kLanes) total += load(a + m);
  return sum_across(total);
}

/// to [width] += sum over the rows of a chunk of weights[i] (one if null) rows[i,:].
inline void add_rows(Span span, int64_t width, const float* rows, const float* weights, float* to) {
  for (int64_t m = 0; m < width; m += kLanes) {
    Vector total = load(to + m);
    for (int64_t i = 0; i < span.n; ++i) {
      const Vector row = load(rows + i * width + m);
      total += weights != nullptr ? row * weights[i] : row;
    }
    store(to + m, total);
  }
}

inline void scale(float* x, int64_t count, float factor) {
  if (factor == 1.0f) return;
  for (int64_t i = 0; i < count; ++i) x[i] *= factor;
}

}  // namespace
}  // namespace mnemosyne::kernels::CPU_CAPABILITY
