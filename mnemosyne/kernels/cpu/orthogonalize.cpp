#include "mnemosyne/kernels/orthogonalize.h"

#include <cmath>

#include "mnemosyne/kernels/cpu/inverse_check.h"
#include "mnemosyne/kernels/cpu/matrix_tiles.h"
#include "mnemosyne/kernels/cpu/spd_inverse.h"

// Letters: M the smaller and N the larger side, X [M, N] (a tall matrix is read as its transpose),
// G [M, M]; W, V, P, R as in matrix_tiles.h. Symmetric matrices are panels of `stored_rows` rows.
namespace mnemosyne::kernels::CPU_CAPABILITY {
namespace {

/// Terms of the Gram matrix summed from one packed chunk: a panel of both operands stays in the
/// first cache.
constexpr int64_t kGramTerms = kOrthogonalizeGramTerms;
/// Terms of the last product summed at a time.
constexpr int64_t kApplyTerms = 256;
/// Rows of a tall matrix that one packed chunk of the last product holds.
constexpr int64_t kApplyRows = kOrthogonalizeRows;

float largest_magnitude(const float* x, int64_t size, bool& finite) {
  Vector largest = {};
  Vector nan_if_not_finite = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    const Vector v = load(x + i);
    const Vector magnitude = v < 0 ? -v : v;
    largest = magnitude > largest ? magnitude : largest;
    nan_if_not_finite += v - v;
  }
  float result = 0;
  float check = sum(nan_if_not_finite);
  for (int lane = 0; lane < kLanes; ++lane)
    result = largest[lane] > result ? largest[lane] : result;
  for (; i < size; ++i) {
    const float magnitude = x[i] < 0 ? -x[i] : x[i];
    result = magnitude > result ? magnitude : result;
    check += x[i] - x[i];
  }
  finite = check == 0;
  return result;
}

float power_of_two_scale(float largest) {
  int exponent = 0;
  std::frexp(largest, &exponent);
  const int shift = 1 - exponent;
  return std::ldexp(1.0f, shift > 126 ? 126 : (shift < -126 ? -126 : shift));
}

/// packed [panels][kGramTerms][P] <- scale X^T, `terms` of its rows from `first` on, columns beyond
/// M zero.
template <int V>
void pack_gram_chunk(const Problem& x, int64_t first, int64_t terms, int64_t panels,
                     float* packed) {
  constexpr int64_t P = V * kLanes;
  for (int64_t i = 0; i < panels * P; i += kLanes) {
    float* to = packed + i / P * kGramTerms * P + i % P;
    const int64_t width = x.m - i < kLanes ? x.m - i : kLanes;
    for (int64_t k = 0; k < terms; k += x.tall ? 1 : kLanes) {
      const int64_t n = first + k;
      if (x.tall && width == kLanes) {
        store(to + k * P, load(x.matrix + n * x.m + i) * x.scale);
      } else if (x.tall) {
        store(to + k * P, Vector{});
        for (int64_t c = 0; c < width; ++c) to[k * P + c] = x.matrix[n * x.m + i + c] * x.scale;
      } else if (width > 0 && k + kLanes <= terms) {
        transpose_block(x.matrix + i * x.n + n, x.n, to + k * P, P, x.scale, width);
      } else {
        const int64_t depth = terms - k < kLanes ? terms - k : kLanes;
        for (int64_t d = 0; d < depth; ++d) {
          store(to + (k + d) * P, Vector{});
          for (int64_t c = 0; c < width; ++c) {
            to[(k + d) * P + c] = x.matrix[(i + c) * x.n + n + d] * x.scale;
          }
        }
      }
    }
  }
}

/// The same in double precision, one by one.
template <int V>
void pack_gram_chunk(const Problem& x, int64_t first, int64_t terms, int64_t panels,
                     double* packed) {
  constexpr int64_t P = V * kLanesOf<double>;
  const int64_t row = x.tall ? 1 : x.n;
  const int64_t column = x.tall ? x.m : 1;
  for (int64_t i = 0; i < panels * P; ++i) {
    double* to = packed + i / P * kGramTerms * P + i % P;
    for (int64_t k = 0; k < terms; ++k) {
      const double value = i < x.m ? x.matrix[i * row + (first + k) * column] : 0;
      to[k * P] = value * x.scale;
    }
  }
}

/// gram <- scale^2 X X^T, the tiles that touch the upper triangle. Of long sums each chunk is
/// summed by itself, so that rounding does not grow with their length.
template <typename T, int V>
void gram_matrix(const Problem& x, const SymmetricLayout<T, V>& layout, T* packed, T* gram) {
  constexpr int64_t P = SymmetricLayout<T, V>::P;
  const bool by_chunks = sums_by_chunks(x.n);
  for (int64_t first = 0; first < x.n; first += kGramTerms) {
    const int64_t terms = x.n - first < kGramTerms ? x.n - first : kGramTerms;
    pack_gram_chunk<V>(x, first, terms, layout.panels, packed);
    layout.for_upper_tiles([&](int64_t i, int64_t panel) {
      const T* a = packed + i / P * kGramTerms * P + i % P;
      const T* b = packed + panel * kGramTerms * P;
      T* c = gram + layout.at(i, panel * P);
      if (first == 0) {
        tile<V, Accumulate::kSet>(terms, a, P, b, P, c, P);
      } else if (by_chunks) {
        tile<V, Accumulate::kAddSum>(terms, a, P, b, P, c, P);
      } else {
        tile<V, Accumulate::kAdd>(terms, a, P, b, P, c, P);
      }
    });
  }
}

/// The smaller of the Frobenius norm and the largest absolute row sum: no eigenvalue is larger.
template <typename T, int V>
T eigenvalue_bound(const SymmetricLayout<T, V>& layout, const T* gram, T* row_sums) {
  constexpr int W = kLanesOf<T>;
  constexpr int64_t P = V * W;
  for (int64_t i = 0; i < layout.panels * P; ++i) row_sums[i] = 0;
  VectorOf<T> squares = {};
  for (int64_t i = 0; i < layout.m; ++i) {
    VectorOf<T> row = {};
    for (int64_t j = i / P * P; j < layout.panels * P; j += W) {
      const VectorOf<T> g = load(gram + layout.at(i, j));
      const VectorOf<T> magnitude = g < 0 ? -g : g;
      const bool mirrored = j / P > i / P;
      row += magnitude;
      squares += (mirrored ? T{2} : T{1}) * g * g;
      if (mirrored) store(row_sums + j, load(row_sums + j) + magnitude);
    }
    row_sums[i] += sum(row);
  }
  T largest = 0;
  for (int64_t i = 0; i < layout.m; ++i) largest = row_sums[i] > largest ? row_sums[i] : largest;
  const T frobenius = std::sqrt(sum(squares));
  return frobenius < largest ? frobenius : largest;
}

/// Both triangles of first <- sum_j weights[j] matrices[j], from the upper triangles.
template <typename T, int V>
void combine(const SymmetricLayout<T, V>& layout, const T* weights, int num_terms, T* first) {
  constexpr int W = kLanesOf<T>;
  constexpr int64_t P = V * W;
  for (int64_t i = 0; i < layout.m; i += W) {
    for (int64_t j = i; j < layout.m; j += W) {
      T* block = first + layout.at(i, j);
      for (int64_t r = 0; r < W; ++r) {
        VectorOf<T> total = {};
        for (int t = 0; t < num_terms; ++t) {
          total += weights[t] * load(block + t * layout.size() + r * P);
        }
        store(block + r * P, total);
      }
      if (j > i) transpose_block(block, P, first + layout.at(j, i), P);
    }
  }
}

/// `tile` into c, of which only `rows` x `columns` exist.
template <int V, bool kAByRows>
inline void store_tile(bool accumulate, int64_t num_terms, const float* a, int64_t lda,
                       const float* b, int64_t ldb, float* c, int64_t ldc, int64_t rows,
                       int64_t columns) {
  constexpr int64_t P = V * kLanes;
  if (rows >= kTileRows && columns >= P) {
    if (accumulate) {
      tile<V, Accumulate::kAdd, kAByRows>(num_terms, a, lda, b, ldb, c, ldc);
    } else {
      tile<V, Accumulate::kSet, kAByRows>(num_terms, a, lda, b, ldb, c, ldc);
    }
    return;
  }
  alignas(64) float whole[kTileRows * P];
  tile<V, Accumulate::kSet, kAByRows>(num_terms, a, lda, b, ldb, whole, P);
  for (int64_t r = 0; r < rows && r < kTileRows; ++r) {
    for (int64_t i = 0; i < columns && i < P; ++i) {
      c[r * ldc + i] = whole[r * P + i] + (accumulate ? c[r * ldc + i] : 0.0f);
    }
  }
}

/// X <- scale function X, X [M, N] as it is stored; a panel of columns is copied before it is
/// overwritten.
template <int V>
void apply_to_wide(const Problem& x, const SymmetricLayout<float, V>& layout, const float* function,
                   float* packed) {
  constexpr int64_t P = V * kLanes;
  for (int64_t n = 0; n < x.n; n += P) {
    const int64_t columns = x.n - n < P ? x.n - n : P;
    for (int64_t k = 0; k < x.m; ++k) {
      const float* from = x.matrix + k * x.n + n;
      if (columns == P) {
        for (int64_t v = 0; v < P; v += kLanes) store(packed + k * P + v, load(from + v) * x.scale);
      } else {
        for (int64_t c = 0; c < P; ++c) packed[k * P + c] = c < columns ? from[c] * x.scale : 0;
      }
    }
    for (int64_t k = 0; k < x.m; k += kApplyTerms) {
      const int64_t terms = x.m - k < kApplyTerms ? x.m - k : kApplyTerms;
      for (int64_t i = 0; i < x.m; i += kTileRows) {
        store_tile<V, false>(k > 0, terms, function + layout.at(k, i), P, packed + k * P, P,
                             x.matrix + i * x.n + n, x.n, x.m - i, columns);
      }
    }
  }
}

/// The same for a tall matrix, stored as X^T [N, M], from the right; a chunk of rows is copied
/// first.
template <int V>
void apply_to_tall(const Problem& x, const SymmetricLayout<float, V>& layout, const float* function,
                   float* packed) {
  constexpr int64_t P = V * kLanes;
  const int64_t stride = layout.stored_rows + kLanes;
  for (int64_t n = 0; n < x.n; n += kApplyRows) {
    const int64_t rows = x.n - n < kApplyRows ? x.n - n : kApplyRows;
    for (int64_t r = 0; r < rows; ++r) {
      const float* from = x.matrix + (n + r) * x.m;
      for (int64_t k = 0; k < x.m; ++k) packed[r * stride + k] = from[k] * x.scale;
    }
    for (int64_t k = 0; k < x.m; k += kApplyTerms) {
      const int64_t terms = x.m - k < kApplyTerms ? x.m - k : kApplyTerms;
      for (int64_t i = 0; i < x.m; i += P) {
        for (int64_t r = 0; r < rows; r += kTileRows) {
          store_tile<V, true>(k > 0, terms, packed + r * stride + k, stride,
                              function + layout.at(k, i), P, x.matrix + (n + r) * x.m + i, x.m,
                              rows - r, x.m - i);
        }
      }
    }
  }
}

/// Where the matrices of one orthogonalisation in T lie, in the workspace.
template <typename T, int V>
struct Workspace {
  Workspace(const Problem& x, int num_terms, float* memory) : layout(x.m) {
    const OrthogonalizeSizes sizes(x.m);
    packed = reinterpret_cast<T*>(memory);
    inverses = packed + sizes.packed;
    scratch = inverses + num_terms * layout.size();
    probe = reinterpret_cast<double*>(scratch + sizes.scratch);
  }

  SymmetricLayout<T, V> layout;
  T* packed;
  T* inverses;
  T* scratch;
  double* probe;
};

/// inverses[0] <- the function P / sqrt(b) of G, both triangles. False, and no function, where T is
/// not precise enough: in double G is rounded far below the shift, whatever the matrix.
template <typename T, int V>
bool sign_function(const Problem& x, const OrthogonalizeParams& params, const Workspace<T, V>& w) {
  gram_matrix(x, w.layout, w.packed, w.inverses);
  const T bound = eigenvalue_bound(w.layout, w.inverses, w.scratch);
  T shifts[kMaxSignTerms];
  T weights[kMaxSignTerms];
  for (int t = 0; t < params.num_terms; ++t) {
    shifts[t] = params.poles[t] * bound;
    weights[t] = -params.weights[t] * std::sqrt(bound);
  }
  InverseCheck<T, V> check(x, w.layout, w.inverses, w.probe);
  if (!negative_inverses(w.layout, shifts, params.num_terms, w.inverses, w.scratch)) return false;
  if (!check.passes(w.inverses, shifts[0], -weights[0])) return false;
  combine(w.layout, weights, params.num_terms, w.inverses);
  return true;
}

/// The same function in double precision, returned in float, in the second half of the memory.
template <int V>
const float* precise_function(const Problem& x, const OrthogonalizeParams& params, float* memory,
                              const SymmetricLayout<float, V>& layout) {
  // Two short vectors are a panel as wide as one of float: no narrower than a tile has rows.
  const Workspace<double, 2> w(x, params.num_terms, memory);
  sign_function(x, params, w);
  float* function = reinterpret_cast<float*>(w.inverses + w.layout.size());
  for (int64_t i = 0; i < x.m; ++i) {
    for (int64_t j = 0; j < x.m; ++j) {
      function[layout.at(i, j)] = static_cast<float>(w.inverses[w.layout.at(i, j)]);
    }
  }
  return function;
}

template <int V>
void orthogonalize_scaled(const Problem& x, const OrthogonalizeParams& params, float* memory) {
  const Workspace<float, V> w(x, params.num_terms, memory);
  const float* function = w.inverses;
  if (!sign_function(x, params, w)) function = precise_function(x, params, memory, w.layout);
  if (x.tall) {
    apply_to_tall<V>(x, w.layout, function, w.packed);
  } else {
    apply_to_wide<V>(x, w.layout, function, w.packed);
  }
}

void normalize(const Problem& x) {
  double squares = 0;
  for (int64_t i = 0; i < x.n; ++i) {
    const double scaled = x.matrix[i] * x.scale;
    squares += scaled * scaled;
  }
  const float factor = static_cast<float>(1 / std::sqrt(squares));
  for (int64_t i = 0; i < x.n; ++i) x.matrix[i] = x.matrix[i] * x.scale * factor;
}

void orthogonalize_one(const OrthogonalizeMatrix& matrix, const OrthogonalizeParams& params,
                       float* memory) {
  const bool tall = matrix.rows > matrix.columns;
  Problem x{.matrix = matrix.data,
            .m = tall ? matrix.columns : matrix.rows,
            .n = tall ? matrix.rows : matrix.columns,
            .tall = tall,
            .scale = 1};
  if (x.m == 0) return;
  bool finite = true;
  const float largest = largest_magnitude(x.matrix, x.m * x.n, finite);
  if (!finite) {
    for (int64_t i = 0; i < x.m * x.n; ++i) x.matrix[i] = NAN;
    return;
  }
  if (largest == 0) return;
  x.scale = power_of_two_scale(largest);
  if (x.m == 1) {
    normalize(x);
  } else if (two_vectors_a_panel(x.m)) {
    orthogonalize_scaled<2>(x, params, memory);
  } else {
    orthogonalize_scaled<1>(x, params, memory);
  }
}

}  // namespace

void orthogonalize(const OrthogonalizeSlice& slice) {
  for (int64_t i = slice.begin; i < slice.end; ++i) {
    orthogonalize_one(slice.problem.matrices[i], slice.problem, slice.scratch);
  }
}

int64_t orthogonalize_scratch(const OrthogonalizeParams& problem) {
  int64_t most = 0;
  for (int64_t i = 0; i < problem.count; ++i) {
    const OrthogonalizeMatrix& matrix = problem.matrices[i];
    const OrthogonalizeSizes sizes(matrix.rows < matrix.columns ? matrix.rows : matrix.columns);
    const int64_t own =
        2 * (sizes.packed + problem.num_terms * sizes.symmetric + sizes.scratch + sizes.check);
    most = own > most ? own : most;
  }
  return most;
}

}  // namespace mnemosyne::kernels::CPU_CAPABILITY
