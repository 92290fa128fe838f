#pragma once

#include <cmath>
#include <cstdint>

#include "mnemosyne/kernels/cpu/matrix_tiles.h"
#include "mnemosyne/kernels/orthogonalize.h"

/// Inverses of symmetric positive definite matrices by blocked sweeps (Gauss-Jordan without
/// pivoting, which needs none here): M^3 operations, nearly all of them in `tile`, the upper
/// triangle only.
namespace mnemosyne::kernels::CPU_CAPABILITY {
namespace {

/// Rows that are swept at once.
constexpr int64_t kBlock = kOrthogonalizeBlock;

inline bool two_vectors_a_panel(int64_t m) {
  return round_up(m, kLanes) % (2 * kLanes) == 0 || m > 4 * kLanes;
}

/// A symmetric [M, M] matrix in panels of which the tiles that touch the upper triangle are kept.
template <int V>
struct SymmetricLayout {
  static constexpr int64_t P = V * kLanes;

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
alignas(64) constexpr float kOnes[2 * kBlock - 1] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                                     0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
alignas(64) constexpr float kHole[2 * kBlock - 1] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0,
                                                     1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

/// blocks[t] [kBlock, kBlock] <- F with F^T F its inverse, lower triangular: the inverse of the
/// Cholesky factor, by elimination in place. `count` blocks side by side, because one alone would
/// wait for a division per row. Pivots are kept above floors[t], which only rounding can make them
/// fall below.
inline void factor_blocks(int64_t rows, int count, const float* floors, float* blocks) {
  constexpr int kVectors = kBlock / kLanes;
  alignas(64) float column[kBlock];
  for (int64_t p = 0; p < rows; ++p) {
    const float* hole = kHole + kBlock - 1 - p;
    const float* ones = kOnes + kBlock - 1 - p;
    for (int t = 0; t < count; ++t) {
      float* block = blocks + t * kBlock * kBlock;
      const float pivot = block[p * kBlock + p];
      const float reciprocal = 1 / (pivot > floors[t] ? pivot : floors[t]);
      const float root = std::sqrt(reciprocal);
      Vector row[kVectors];
      for (int v = 0; v < kVectors; ++v) {
        const Vector kept = load(hole + v * kLanes);
        const Vector old = load(block + p * kBlock + v * kLanes);
        store(column + v * kLanes, old * reciprocal);
        row[v] = old * kept + (1.0f - kept);
        store(block + p * kBlock + v * kLanes, row[v] * load(ones + v * kLanes) * root);
      }
      for (int64_t i = p + 1; i < rows; ++i) {
        for (int v = 0; v < kVectors; ++v) {
          float* at = block + i * kBlock + v * kLanes;
          store(at, load(at) * load(hole + v * kLanes) - column[i] * row[v]);
        }
      }
    }
  }
}

/// rows [panels][kBlock][P] <- the rows k .. k + kBlock of a matrix of which the upper triangle is
/// kept.
template <int V>
inline void read_rows(const SymmetricLayout<V>& layout, const float* matrix, int64_t k,
                      int64_t count, float* rows) {
  constexpr int64_t P = V * kLanes;
  for (int64_t j = 0; j < layout.panels * P; j += kLanes) {
    float* to = rows + j / P * kBlock * P + j % P;
    if (j < k) {
      for (int64_t r = 0; r < count; r += kLanes) {
        transpose_block(matrix + layout.at(j, k + r), P, to + r * P, P);
      }
    } else {
      for (int64_t r = 0; r < count; ++r) store(to + r * P, load(matrix + layout.at(k + r, j)));
    }
  }
}

/// The rows k .. k + kBlock of the matrix <- `rows`, the pivot block in them <- minus `block`.
template <int V>
inline void write_rows(const SymmetricLayout<V>& layout, const float* rows, const float* block,
                       int64_t k, int64_t count, float* matrix) {
  constexpr int64_t P = V * kLanes;
  for (int64_t j = 0; j < layout.panels * P; j += kLanes) {
    const float* from = rows + j / P * kBlock * P + j % P;
    if (j < k) {
      for (int64_t r = 0; r < count; r += kLanes) {
        transpose_block(from + r * P, P, matrix + layout.at(j, k + r), P);
      }
    } else if (j < k + kBlock) {
      for (int64_t r = 0; r < count; ++r) {
        store(matrix + layout.at(k + r, j), -load(block + r * kBlock + j - k));
      }
    } else {
      for (int64_t r = 0; r < count; ++r) store(matrix + layout.at(k + r, j), load(from + r * P));
    }
  }
}

/// to [panels][kBlock][P] <- F from, or F^T from.
template <int V, bool kTransposed>
inline void multiply_rows(const SymmetricLayout<V>& layout, const float* factor, const float* from,
                          int64_t count, float* to) {
  constexpr int64_t P = V * kLanes;
  for (int64_t panel = 0; panel < layout.panels; ++panel) {
    const int64_t start = panel * kBlock * P;
    for (int64_t r = 0; r < count; r += kTileRows) {
      tile<V, Accumulate::kSet, !kTransposed>(count, factor + (kTransposed ? r : r * kBlock),
                                              kBlock, from + start, P, to + start + r * P, P);
    }
  }
}

/// Sweeps the rows k .. k + kBlock with the factor of the pivot block: D their pivot block and B
/// the rows, A <- A - B^T D^-1 B elsewhere, rows <- D^-1 B, block <- -D^-1.
template <int V>
inline void sweep(const SymmetricLayout<V>& layout, const float* factor, int64_t k, int64_t count,
                  float* matrix, float* scratch) {
  constexpr int64_t P = V * kLanes;
  constexpr int kVectors = kBlock / kLanes;
  alignas(64) float block[kBlock * kBlock];
  for (int64_t r = 0; r < count; r += kTileRows) {
    tile<kVectors, Accumulate::kSet>(count, factor + r, kBlock, factor, kBlock, block + r * kBlock,
                                     kBlock);
  }
  float* rows = scratch;
  float* half = rows + layout.panels * P * kBlock;
  if (layout.m > kBlock) {
    read_rows(layout, matrix, k, count, rows);
    multiply_rows<V, false>(layout, factor, rows, count, half);
    layout.for_upper_tiles([&](int64_t i, int64_t panel) {
      tile<V, Accumulate::kSubtract>(count, half + i / P * kBlock * P + i % P, P,
                                     half + panel * kBlock * P, P, matrix + layout.at(i, panel * P),
                                     P);
    });
    multiply_rows<V, true>(layout, factor, half, count, rows);
  }
  write_rows(layout, rows, block, k, count, matrix);
}

/// matrices[t] <- -(A + shifts[t] I)^-1 where A is matrices[0], t < count: upper triangles.
/// `scratch` holds count kBlock^2 + 2 panels P kBlock floats.
template <int V>
void negative_inverses(const SymmetricLayout<V>& layout, const float* shifts, int count,
                       float* matrices, float* scratch) {
  float* blocks = scratch;
  scratch += count * kBlock * kBlock;
  float floors[kMaxSignTerms];
  for (int t = count - 1; t >= 0; --t) {
    float* matrix = matrices + t * layout.size();
    floors[t] = shifts[t] / 2;
    if (t > 0) std::memcpy(matrix, matrices, layout.size() * sizeof(float));
    for (int64_t i = 0; i < layout.m; ++i) matrix[layout.at(i, i)] += shifts[t];
  }
  for (int64_t k = 0; k < layout.m; k += kBlock) {
    const int64_t size = layout.m - k < kBlock ? layout.m - k : kBlock;
    for (int t = 0; t < count; ++t) {
      const float* matrix = matrices + t * layout.size();
      for (int64_t r = 0; r < size; ++r) {
        for (int64_t c = 0; c < size; c += kLanes) {
          store(blocks + (t * kBlock + r) * kBlock + c, load(matrix + layout.at(k + r, k + c)));
        }
      }
    }
    factor_blocks(size, count, floors, blocks);
    for (int t = 0; t < count; ++t) {
      sweep(layout, blocks + t * kBlock * kBlock, k, size, matrices + t * layout.size(), scratch);
    }
  }
}

}  // namespace
}  // namespace mnemosyne::kernels::CPU_CAPABILITY
