#pragma once

#include <cmath>
#include <cstdint>

#include "mnemosyne/kernels/cpu/matrix_tiles.h"
#include "mnemosyne/kernels/cpu/spd_inverse.h"
#include "mnemosyne/kernels/orthogonalize.h"

/// Whether the inverse of a Gram matrix, both rounded to float, is still that of the matrix.
namespace mnemosyne::kernels::CPU_CAPABILITY {
namespace {

/// X [M, N], M <= N; `tall` where it is stored as its transpose.
struct Problem {
  float* matrix;
  int64_t m;
  int64_t n;
  bool tall;
  float scale;  ///< a power of two that brings the largest magnitude to [1, 2)
};

/// Sums of more terms than this are made of those of chunks.
constexpr int64_t kLongSum = 2048;

inline bool sums_by_chunks(int64_t terms) { return terms > kLongSum; }

/// Columns of X that the check reads at a time.
constexpr int64_t kPiece = 64;

/// How many additions a term of a sum goes through.
inline double sum_length(int64_t terms) {
  constexpr int64_t kChunk = kOrthogonalizeGramTerms;
  return static_cast<double>(sums_by_chunks(terms) ? kChunk + terms / kChunk : terms);
}

/// How many roundings of the whole sum are as large as all of them, at random: those of a chunk are
/// of a small part of it.
inline double random_roundings(int64_t terms) {
  if (!sums_by_chunks(terms)) return static_cast<double>(terms);
  constexpr double kChunk = kOrthogonalizeGramTerms;
  return kChunk * kChunk / terms + terms / kChunk;
}

/// +1 and -1 at random, of which a piece takes as many as it needs from any place on.
struct SignTable {
  static constexpr int64_t kPlaces = 1024;

  constexpr SignTable() {
    for (int64_t i = 0; i < kPlaces + kPiece; ++i) values[i] = hash(i) & 1u ? 1.0f : -1.0f;
  }

  static constexpr uint64_t hash(int64_t index) {
    uint64_t bits = static_cast<uint64_t>(index + 1) * 0x9E3779B97F4A7C15u;
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9u;
    return bits ^ (bits >> 31);
  }

  const float* at(int64_t piece, int64_t draw) const {
    return values + hash(piece + (draw << 40)) % kPlaces;
  }

  float values[kPlaces + kPiece] = {};
};

alignas(64) constexpr SignTable kSigns;

/// Rows of X or of X^T as they are stored, [rows, size] with `stride`, times `scale`.
struct Rows {
  const float* values;
  int64_t stride;
  int64_t count;
  int64_t size;
  float scale;

  Vector vector(int64_t row, int64_t at) const { return load(values + row * stride + at) * scale; }
  float number(int64_t row, int64_t at) const { return values[row * stride + at] * scale; }
};

/// to[r] = <x_r, y>: W rows at a time, whose sums are added up side by side.
inline void dots(const Rows& x, const float* y, float* to) {
  const int64_t whole = x.size / kLanes * kLanes;
  int64_t r = 0;
  for (; r + kLanes <= x.count; r += kLanes) {
    Vector sums[kLanes] = {};
    for (int64_t i = 0; i < whole; i += kLanes) {
      const Vector factor = load(y + i);
#pragma GCC unroll 16
      for (int k = 0; k < kLanes; ++k) sums[k] += x.vector(r + k, i) * factor;
    }
    transpose(sums);
    Vector total = {};
#pragma GCC unroll 16
    for (int k = 0; k < kLanes; ++k) total += sums[k];
    store(to + r, total);
    for (int64_t i = whole; i < x.size; ++i) {
      for (int k = 0; k < kLanes; ++k) to[r + k] += x.number(r + k, i) * y[i];
    }
  }
  for (; r < x.count; ++r) {
    Vector total = {};
    for (int64_t i = 0; i < whole; i += kLanes) total += x.vector(r, i) * load(y + i);
    to[r] = sum(total);
    for (int64_t i = whole; i < x.size; ++i) to[r] += x.number(r, i) * y[i];
  }
}

/// to += sum_r factors[r] x_r.
inline void add_multiples(const Rows& x, const float* factors, float* to) {
  constexpr int64_t kTogether = 4;
  int64_t r = 0;
  for (; r + kTogether <= x.count; r += kTogether) {
    const float* f = factors + r;
    int64_t i = 0;
    for (; i + kLanes <= x.size; i += kLanes) {
      store(to + i, load(to + i) + (f[0] * x.vector(r, i) + f[1] * x.vector(r + 1, i)) +
                        (f[2] * x.vector(r + 2, i) + f[3] * x.vector(r + 3, i)));
    }
    for (; i < x.size; ++i) {
      for (int64_t k = 0; k < kTogether; ++k) to[i] += f[k] * x.number(r + k, i);
    }
  }
  for (; r < x.count; ++r) {
    for (int64_t i = 0; i < x.size; ++i) to[i] += factors[r] * x.number(r, i);
  }
}

/// Calls body(rows) for pieces of at most kPiece columns of X: all rows of X with these columns,
/// or, where X is tall, as many rows of X^T.
template <typename Body>
inline void for_pieces(const Problem& x, Body body) {
  for (int64_t n = 0; n < x.n; n += kPiece) {
    const int64_t columns = x.n - n < kPiece ? x.n - n : kPiece;
    body(x.tall ? Rows{x.matrix + n * x.m, x.m, columns, x.m, x.scale}
                : Rows{x.matrix + n, x.n, x.m, columns, x.scale});
  }
}

/// The sum of squares, each piece summed by itself.
inline double sum_of_squares(const float* values, int64_t size, float scale) {
  Vector total = {};
  int64_t i = 0;
  while (i + kLanes <= size) {
    const int64_t end = size - i < kPiece ? size : i + kPiece;
    Vector piece = {};
    for (; i + kLanes <= end; i += kLanes) {
      const Vector value = load(values + i) * scale;
      piece += value * value;
    }
    total += piece;
  }
  double result = sum(total);
  for (; i < size; ++i) result += (values[i] * scale) * (values[i] * scale);
  return result;
}

/// to [M] <- the squares of the rows of X; `space` is M numbers.
inline void squares_of_rows(const Problem& x, float* space, double* to) {
  if (!x.tall) {
    for (int64_t i = 0; i < x.m; ++i) to[i] = sum_of_squares(x.matrix + i * x.n, x.n, x.scale);
    return;
  }
  for (int64_t i = 0; i < x.m; ++i) to[i] = 0;
  for_pieces(x, [&](const Rows& rows) {
    for (int64_t i = 0; i < x.m; ++i) space[i] = 0;
    for (int64_t r = 0; r < rows.count; ++r) {
#pragma GCC ivdep
      for (int64_t i = 0; i < x.m; ++i) space[i] += rows.number(r, i) * rows.number(r, i);
    }
    for (int64_t i = 0; i < x.m; ++i) to[i] += space[i];
  });
}

/// to [M] <- X w for signs w [N], others for each draw; `space` is M numbers.
inline void multiply_signs(const Problem& x, int64_t draw, float* space, float* to) {
  for (int64_t i = 0; i < x.m; ++i) to[i] = 0;
  int64_t piece = 0;
  for_pieces(x, [&](const Rows& rows) {
    const float* signs = kSigns.at(piece++, draw);
    if (x.tall) return add_multiples(rows, signs, to);
    dots(rows, signs, space);
    for (int64_t i = 0; i < x.m; ++i) to[i] += space[i];
  });
}

/// to += X X^T from, each piece summed by itself and all of them in double precision: what is lost
/// here does not grow with the length of the rows, as it may have done in the Gram matrix.
inline void add_gram(const Problem& x, const float* from, float* space, double* to) {
  alignas(64) float inner[kPiece];
  for_pieces(x, [&](const Rows& rows) {
    if (x.tall) {
      for (int64_t i = 0; i < x.m; ++i) space[i] = 0;
      dots(rows, from, inner);
      add_multiples(rows, inner, space);
    } else {
      for (int64_t c = 0; c < rows.size; ++c) inner[c] = 0;
      add_multiples(rows, from, inner);
      dots(rows, inner, space);
    }
    for (int64_t i = 0; i < x.m; ++i) to[i] += space[i];
  });
}

/// kBehind + kLanes - 1 - p: ones behind lane p.
struct LanesBehind {
  constexpr LanesBehind() {
    for (int i = kLanes; i < 2 * kLanes; ++i) values[i] = 1;
  }
  float values[2 * kLanes] = {};
};

alignas(64) constexpr LanesBehind kBehind;

/// to [M] <- -A from, A symmetric with its upper triangle kept.
template <int V>
inline void multiply_negative(const SymmetricLayout<float, V>& layout, const float* a,
                              const float* from, float* to) {
  const int64_t whole = layout.m / kLanes * kLanes;
  for (int64_t i = 0; i < layout.m; ++i) to[i] = 0;
  for (int64_t i = 0; i < layout.m; ++i) {
    const float factor = from[i];
    Vector total = {};
    int64_t j = i / kLanes * kLanes;
    const auto add = [&](Vector row) {
      total += row * load(from + j);
      store(to + j, load(to + j) - factor * row);
      j += kLanes;
    };
    if (j < whole) {
      const Vector behind = load(kBehind.values + kLanes - 1 - i % kLanes);
      add(behind > 0 ? load(a + layout.at(i, j)) : Vector{});
    }
    while (j < whole) add(load(a + layout.at(i, j)));
    float own = sum(total) + a[layout.at(i, i)] * factor;
    for (j = j > i ? j : i + 1; j < layout.m; ++j) {
      const float value = a[layout.at(i, j)];
      own += value * from[j];
      to[j] -= value * factor;
    }
    to[i] -= own;
  }
}

/// Whether R, computed in float as the inverse of A + shift I for the Gram matrix A, is good enough
/// for the term weight R X of the result. In double precision there is nothing to check.
template <typename T, int V>
class InverseCheck {
 public:
  InverseCheck(const Problem&, const SymmetricLayout<T, V>&, const T*, double*) {}
  bool passes(const T*, T, T) const { return true; }
};

/// A has been rounded to A + E, and R may lose what E changes where A is small beside the shift.
/// For a vector w of random signs, v = R X w and u = (X X^T + shift) v - X w in double precision,
/// the error of the result is about weight R u in the place of w, whose length is on average the
/// Frobenius norm of the whole error. This is skipped where the length of the sums, or the size of
/// R, says that it must be short.
template <int V>
class InverseCheck<float, V> {
 public:
  /// Remembers what has to be known of A before R takes its place; `space` is 2 M numbers.
  InverseCheck(const Problem& x, const SymmetricLayout<float, V>& layout, const float* gram,
               double* space)
      : x_(x), layout_(layout), space_(space) {
    float* squares = vector();
    for (int64_t i = 0; i < x.m; ++i) {
      squares[i] = gram[layout.at(i, i)];
      largest_ = squares[i] > largest_ ? squares[i] : largest_;
    }
  }

  /// `inverse` is -R, its upper triangle.
  bool passes(const float* inverse, float shift, float weight) const {
    constexpr double kRounding = 1.0 / (1 << 24);
    constexpr double kNegligible = 0.1, kLargestDiagonal = 1.25;
    // Rounding at random, and always the same way, over the shift: what gradients of ordinary
    // layers stay below. Few chunks of a long sum say less about what each of them lost.
    const double usual = sums_by_chunks(x_.n) ? 0.1 : 0.2;
    const double worst = sums_by_chunks(x_.n) ? 1.0 : 5.0;
    const double length = sum_length(x_.n) + x_.m;
    const double unit = kRounding * largest_ / shift;
    double trace = 0, largest = 0;
    for (int64_t i = 0; i < x_.m; ++i) {
      const double value = -inverse[layout_.at(i, i)] * static_cast<double>(shift);
      trace += value;
      largest = value > largest ? value : largest;
    }
    if (!(trace >= 0 && largest <= kLargestDiagonal)) return false;
    if (trace * length * unit <= kNegligible) return true;
    if (std::sqrt(length) * unit <= usual && length * unit <= worst && rounded_at_random()) {
      return true;
    }
    return is_small(inverse, shift, weight);
  }

 private:
  float* vector() const { return reinterpret_cast<float*>(space_ + x_.m); }

  /// Whether the squares of the rows are off by what adding up at random makes of them. Where the
  /// same number is added again and again it is rounded the same way each time.
  bool rounded_at_random() const {
    constexpr double kRounding = 1.0 / (1 << 24), kMost = 1.3;
    double* exact = space_;
    const float* rounded = vector();
    squares_of_rows(x_, vector() + x_.m, exact);
    const double most = kMost * kRounding * std::sqrt(random_roundings(x_.n));
    for (int64_t i = 0; i < x_.m; ++i) {
      if (!(std::fabs(rounded[i] - exact[i]) <= most * exact[i])) return false;
    }
    return true;
  }

  /// Of many rows more directions share the error, each with less of it, and one vector meets them
  /// all. Of few, one may miss the direction that counts: where it leaves doubt, four are taken.
  bool is_small(const float* inverse, float shift, float weight) const {
    constexpr int64_t kMany = 64;
    constexpr int kDraws = 4;
    const double limit = 0.06 * std::sqrt(x_.m / double{kMany}) / weight;
    const double first = error(inverse, shift, 0);
    if (x_.m > kMany || first < limit / 8) return first <= limit;
    double squares = first * first;
    for (int draw = 1; draw < kDraws && squares <= kDraws * limit * limit; ++draw) {
      const double next = error(inverse, shift, draw);
      squares += next * next;
    }
    return squares <= kDraws * limit * limit;
  }

  /// |R u|, of u in double precision where what is left of it is small.
  double error(const float* inverse, float shift, int draw) const {
    double* u = space_;
    float* a = vector();
    float* b = a + x_.m;
    multiply_signs(x_, draw, b, a);
    multiply_negative(layout_, inverse, a, b);
    for (int64_t i = 0; i < x_.m; ++i) u[i] = static_cast<double>(shift) * b[i] - a[i];
    add_gram(x_, b, a, u);
    for (int64_t i = 0; i < x_.m; ++i) a[i] = static_cast<float>(u[i]);
    multiply_negative(layout_, inverse, a, b);
    double squares = 0;
    for (int64_t i = 0; i < x_.m; ++i) squares += static_cast<double>(b[i]) * b[i];
    return std::sqrt(squares);
  }

  const Problem& x_;
  const SymmetricLayout<float, V>& layout_;
  double* space_;
  float largest_ = 0;
};

}  // namespace
}  // namespace mnemosyne::kernels::CPU_CAPABILITY
