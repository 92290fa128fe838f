#pragma once

#include <cmath>
#include <cstdint>

#include "mnemosyne/kernels/cpu/matrix_tiles.h"
#include "mnemosyne/kernels/orthogonalize.h"

/// Inverses of symmetric positive definite matrices by blocked sweeps (Gauss-Jordan without
/// pivoting, which needs none as long as rounding leaves them so): M^3 operations, nearly all of
/// them in `tile`, the upper triangle only.
namespace mnemosyne::kernels::CPU_CAPABILITY {
namespace {

/// Rows that are swept at once.
constexpr int64_t kBlock = kOrthogonalizeBlock;
/// Rows that a matrix larger than kDeepFrom sweeps before it is updated.
constexpr int64_t kMaxDepth = kOrthogonalizeDepth;
constexpr int64_t kDeepFrom = 256;

inline bool two_vectors_a_panel(int64_t m) { return m > 4 * kLanes; }

/// A symmetric [M, M] matrix in panels of which the tiles that touch the upper triangle are kept.
template <typename T, int V>
struct SymmetricLayout {
  static constexpr int64_t P = V * kLanesOf<T>;

  explicit SymmetricLayout(int64_t side)
      : m(side), stored_rows(round_up(side, kBlock)), panels((side + P - 1) / P) {}

  int64_t size() const { return panels * stored_rows * P; }
  int64_t at(int64_t i, int64_t j) const { return (j / P * stored_rows + i) * P + j % P; }

  /// body(first row, panel)
  template <typename Body>
  void for_upper_tiles(const Body& body) const {
    for (int64_t panel = 0; panel < panels; ++panel) {
      // To the end of the block on the diagonal: blocks that are swept are kept whole.
      const int64_t block_end = round_up((panel + 1) * P, kBlock);
      const int64_t end = block_end < m ? block_end : m;
      for (int64_t i = 0; i < end; i += kTileRows) body(i, panel);
    }
  }

  int64_t m;
  int64_t stored_rows;
  int64_t panels;
};

/// kOnes + kBlock - 1 - p: ones up to lane p, zeros after it. kHole likewise: a zero at lane p
/// alone.
template <typename T>
alignas(64) constexpr T kOnes[2 * kBlock - 1] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                                 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
template <typename T>
alignas(64) constexpr T kHole[2 * kBlock - 1] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0,
                                                 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

/// blocks[t] [kBlock, kBlock] <- F with F^T F its inverse, lower triangular: the inverse of the
/// Cholesky factor, by elimination in place. `count` blocks side by side, because one alone would
/// wait for a division per row. Pivots are kept above floors[t], which only rounding can make them
/// fall below; returns whether none had to be.
template <typename T>
inline bool factor_blocks(int64_t rows, int count, const T* floors, T* blocks) {
  constexpr int W = kLanesOf<T>;
  constexpr int kVectors = kBlock / W;
  alignas(64) T column[kBlock];
  bool positive = true;
  for (int64_t p = 0; p < rows; ++p) {
    const T* hole = kHole<T> + kBlock - 1 - p;
    const T* ones = kOnes<T> + kBlock - 1 - p;
    for (int t = 0; t < count; ++t) {
      T* block = blocks + t * kBlock * kBlock;
      const T pivot = block[p * kBlock + p];
      const bool above = pivot > floors[t];
      positive = positive && above;
      const T reciprocal = 1 / (above ? pivot : floors[t]);
      const T root = std::sqrt(reciprocal);
      VectorOf<T> row[kVectors];
      for (int v = 0; v < kVectors; ++v) {
        const VectorOf<T> kept = load(hole + v * W);
        const VectorOf<T> old = load(block + p * kBlock + v * W);
        store(column + v * W, old * reciprocal);
        row[v] = old * kept + (T{1} - kept);
        store(block + p * kBlock + v * W, row[v] * load(ones + v * W) * root);
      }
      for (int64_t i = p + 1; i < rows; ++i) {
        for (int v = 0; v < kVectors; ++v) {
          T* at = block + i * kBlock + v * W;
          store(at, load(at) * load(hole + v * W) - column[i] * row[v]);
        }
      }
    }
  }
  return positive;
}

/// Moves the rows k .. k + count, of which the upper triangle is kept, to rows [panels][kBlock][P]
/// and leaves zeros in them and in their columns.
template <typename T, int V>
inline void take_rows(const SymmetricLayout<T, V>& layout, T* matrix, int64_t k, int64_t count,
                      T* rows) {
  constexpr int W = kLanesOf<T>;
  constexpr int64_t P = V * W;
  for (int64_t j = 0; j < layout.panels * P; j += W) {
    T* to = rows + j / P * kBlock * P + j % P;
    if (j < k) {
      for (int64_t r = 0; r < count; r += W) {
        T* from = matrix + layout.at(j, k + r);
        transpose_block(from, P, to + r * P, P);
        for (int64_t i = 0; i < W; ++i) store(from + i * P, VectorOf<T>{});
      }
    } else {
      for (int64_t r = 0; r < count; ++r) {
        T* from = matrix + layout.at(k + r, j);
        store(to + r * P, load(from));
        store(from, VectorOf<T>{});
      }
    }
  }
}

/// One of the matrices that are inverted together, and the rows that it has swept since its last
/// update.
template <typename T>
struct Sweep {
  T* matrix;
  T* block;  ///< [kBlock, kBlock]: the pivot block, then its factor F
  T* rows;   ///< [panels][kBlock][P]: B, the rows of the pivot block
  T* swept;  ///< [panels][depth][P]: F B, and -F in the columns of the pivot block
};

/// Reads the rows k .. k + count as they would be after the `pending` sweeps that the matrix has
/// not seen.
template <typename T, int V>
inline void begin_block(const SymmetricLayout<T, V>& layout, const Sweep<T>& sweep, int64_t k,
                        int64_t count, int64_t pending, int64_t depth) {
  constexpr int W = kLanesOf<T>;
  constexpr int64_t P = V * W;
  take_rows(layout, sweep.matrix, k, count, sweep.rows);
  if (pending > 0) {
    for (int64_t panel = 0; panel < layout.panels; ++panel) {
      for (int64_t r = 0; r < count; r += kTileRows) {
        const int64_t i = k + r;
        tile<V, Accumulate::kSubtract>(pending, sweep.swept + i / P * depth * P + i % P, P,
                                       sweep.swept + panel * depth * P, P,
                                       sweep.rows + (panel * kBlock + r) * P, P);
      }
    }
    // These rows have them now: the update of the matrix must not bring them again.
    for (int64_t r = 0; r < pending; ++r) {
      for (int64_t c = 0; c < count; c += W) {
        const int64_t j = k + c;
        store(sweep.swept + (j / P * depth + r) * P + j % P, VectorOf<T>{});
      }
    }
  }
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t c = 0; c < count; c += W) {
      const int64_t j = k + c;
      store(sweep.block + r * kBlock + c, load(sweep.rows + (j / P * kBlock + r) * P + j % P));
    }
  }
}

/// Appends F B, and -F in place of the pivot block, as the rows `pending` and following of `swept`.
template <typename T, int V>
inline void end_block(const SymmetricLayout<T, V>& layout, const Sweep<T>& sweep, int64_t k,
                      int64_t count, int64_t pending, int64_t depth) {
  constexpr int W = kLanesOf<T>;
  constexpr int64_t P = V * W;
  for (int64_t panel = 0; panel < layout.panels; ++panel) {
    for (int64_t r = 0; r < count; r += kTileRows) {
      // F is lower triangular: no terms beyond the last row of the tile.
      const int64_t terms = r + kTileRows < count ? r + kTileRows : count;
      tile<V, Accumulate::kSet, true>(terms, sweep.block + r * kBlock, kBlock,
                                      sweep.rows + panel * kBlock * P, P,
                                      sweep.swept + (panel * depth + pending + r) * P, P);
    }
  }
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t c = 0; c < count; c += W) {
      const int64_t j = k + c;
      store(sweep.swept + (j / P * depth + pending + r) * P + j % P,
            -load(sweep.block + r * kBlock + c));
    }
  }
}

/// Rows that are swept before the rest of a matrix is updated: large matrices do not stay in the
/// cache.
inline int64_t sweep_depth(int64_t m) { return m > kDeepFrom ? kMaxDepth : kBlock; }

/// matrices[t] <- -(A + shifts[t] I)^-1 where A is matrices[0], t < count: upper triangles.
/// `scratch` is `OrthogonalizeSizes::scratch` numbers. Returns false, and something that is no
/// inverse, where a pivot fell below shifts[t] / 2: A is not positive semidefinite.
///
/// With D the pivot block, B its rows and F^T F = D^-1, a sweep is A <- A - B^T D^-1 B elsewhere,
/// D^-1 B in the rows and -D^-1 in the block. All three are A - W^T W once the rows and columns are
/// zero and W is F B with -F in the columns of the block.
template <typename T, int V>
bool negative_inverses(const SymmetricLayout<T, V>& layout, const T* shifts, int count, T* matrices,
                       T* scratch) {
  constexpr int W = kLanesOf<T>;
  constexpr int64_t P = V * W;
  const int64_t columns = layout.panels * P;
  const int64_t depth = sweep_depth(layout.m);
  T floors[kMaxSignTerms];
  Sweep<T> sweeps[kMaxSignTerms];
  for (int t = count - 1; t >= 0; --t) {
    T* matrix = matrices + t * layout.size();
    floors[t] = shifts[t] / 2;
    if (t > 0) std::memcpy(matrix, matrices, layout.size() * sizeof(T));
    for (int64_t i = 0; i < layout.m; ++i) matrix[layout.at(i, i)] += shifts[t];
    T* rows = scratch + count * kBlock * kBlock + t * (kBlock + depth) * columns;
    sweeps[t] = {.matrix = matrix,
                 .block = scratch + t * kBlock * kBlock,
                 .rows = rows,
                 .swept = rows + kBlock * columns};
  }
  bool positive = true;
  int64_t pending = 0;
  for (int64_t k = 0; k < layout.m; k += kBlock) {
    const int64_t size = layout.m - k < kBlock ? layout.m - k : kBlock;
    for (int t = 0; t < count; ++t) begin_block(layout, sweeps[t], k, size, pending, depth);
    positive = factor_blocks(size, count, floors, scratch) && positive;
    for (int t = 0; t < count; ++t) end_block(layout, sweeps[t], k, size, pending, depth);
    pending += size;
    if (pending + kBlock <= depth && k + kBlock < layout.m) continue;
    for (int t = 0; t < count; ++t) {
      const T* swept = sweeps[t].swept;
      layout.for_upper_tiles([&](int64_t i, int64_t panel) {
        tile<V, Accumulate::kSubtract>(pending, swept + i / P * depth * P + i % P, P,
                                       swept + panel * depth * P, P,
                                       sweeps[t].matrix + layout.at(i, panel * P), P);
      });
    }
    pending = 0;
  }
  return positive;
}

}  // namespace
}  // namespace mnemosyne::kernels::CPU_CAPABILITY
