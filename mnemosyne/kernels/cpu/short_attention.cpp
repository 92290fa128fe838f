#include "mnemosyne/kernels/short_attention.h"

#include <ATen/cpu/vec/vec.h>

#include <algorithm>

#include "mnemosyne/kernels/cpu/arena.h"

namespace mnemosyne::kernels::CPU_CAPABILITY {
namespace {

using Vec = at::vec::Vectorized<float>;

constexpr int64_t kLanes = Vec::size();
static_assert(kRowPadding % kLanes == 0);

/// A matrix inside a larger array: element (i, j) is data[i * row + j * column].
struct View {
  const float* data;
  int64_t row;
  int64_t column;
};

template <int kRows, int kVectors>
inline void tile(int64_t terms, View a, const float* b, int64_t b_row, float* c, int64_t c_row) {
  Vec sums[kRows][kVectors];
  for (auto& row : sums) {
    for (Vec& sum : row) sum = Vec(0.0f);
  }
  for (int64_t k = 0; k < terms; ++k) {
    Vec right[kVectors];
    for (int v = 0; v < kVectors; ++v) right[v] = Vec::loadu(b + k * b_row + v * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const Vec left(a.data[r * a.row + k * a.column]);
      for (int v = 0; v < kVectors; ++v) sums[r][v] = at::vec::fmadd(left, right[v], sums[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) sums[r][v].store(c + r * c_row + v * kLanes);
  }
}

template <int kVectors>
inline void columns(int64_t rows, int64_t terms, View a, const float* b, int64_t b_row, float* c,
                    int64_t c_row) {
  constexpr int kRows = 4;
  int64_t i = 0;
  for (; i + kRows <= rows; i += kRows) {
    tile<kRows, kVectors>(terms, {a.data + i * a.row, a.row, a.column}, b, b_row, c + i * c_row,
                          c_row);
  }
  for (; i < rows; ++i) {
    tile<1, kVectors>(terms, {a.data + i * a.row, a.row, a.column}, b, b_row, c + i * c_row, c_row);
  }
}

/// c [rows,width] = a [rows,terms] b [terms,width]; b and c have rows of `width`, a padded one.
void product(int64_t rows, int64_t width, int64_t terms, View a, const float* b, float* c) {
  int64_t j = 0;
  for (; j + 2 * kLanes <= width; j += 2 * kLanes) {
    columns<2>(rows, terms, a, b + j, width, c + j, width);
  }
  if (j < width) columns<1>(rows, terms, a, b + j, width, c + j, width);
}

/// source [rows,columns] with the given distance of its rows, to rows of `width` filled up with
/// zeros.
void pad(int64_t rows, int64_t columns, const float* source, int64_t source_row, float* target,
         int64_t width) {
  for (int64_t i = 0; i < rows; ++i) {
    std::copy_n(source + i * source_row, columns, target + i * width);
    std::fill(target + i * width + columns, target + (i + 1) * width, 0.0f);
  }
}

/// The transpose of source [rows,columns], also in rows of `width` filled up with zeros.
void pad_transposed(int64_t rows, int64_t columns, const float* source, int64_t source_row,
                    float* target, int64_t width) {
  for (int64_t j = 0; j < columns; ++j) {
    for (int64_t i = 0; i < rows; ++i) target[j * width + i] = source[i * source_row + j];
    std::fill(target + j * width + rows, target + (j + 1) * width, 0.0f);
  }
}

/// rows [rows,columns] of padded rows to a place where rows lie `target_row` apart.
void unpad(int64_t rows, int64_t columns, const float* source, int64_t width, float* target,
           int64_t target_row) {
  for (int64_t i = 0; i < rows; ++i) {
    std::copy_n(source + i * width, columns, target + i * target_row);
  }
}

/// All lanes by a tree of `combine`.
template <typename Combine>
inline float across(const Vec& x, const Combine& combine) {
  float lanes[kLanes];
  x.store(lanes);
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) lanes[i] = combine(lanes[i], lanes[i + half]);
  }
  return lanes[0];
}

inline float sum_of(const Vec& x) {
  return across(x, [](float a, float b) { return a + b; });
}

inline float largest_of(const Vec& x) {
  return across(x, [](float a, float b) { return a > b ? a : b; });
}

/// Softmax of scale * row over its first `count` scores; the rest becomes zero.
void softmax(float* row, int64_t count, int64_t width, float scale) {
  // Any valid score in the padding leaves the largest one as it is.
  std::fill(row + count, row + width, row[0]);
  Vec largest = Vec::loadu(row);
  for (int64_t j = kLanes; j < width; j += kLanes) {
    largest = at::vec::maximum(largest, Vec::loadu(row + j));
  }
  const Vec offset(scale * largest_of(largest));
  for (int64_t j = 0; j < width; j += kLanes) {
    at::vec::fmsub(Vec::loadu(row + j), Vec(scale), offset).exp_u20().store(row + j);
  }
  std::fill(row + count, row + width, 0.0f);
  Vec total(0.0f);
  for (int64_t j = 0; j < width; j += kLanes) total = total + Vec::loadu(row + j);
  const Vec factor(1.0f / sum_of(total));
  for (int64_t j = 0; j < width; j += kLanes) (Vec::loadu(row + j) * factor).store(row + j);
}

/// grad <- scale * weights * (grad - <weights, grad>): the softmax's gradient for one row.
void softmax_backward(const float* weights, float* grad, int64_t width, float scale) {
  Vec dot(0.0f);
  for (int64_t j = 0; j < width; j += kLanes) {
    dot = at::vec::fmadd(Vec::loadu(weights + j), Vec::loadu(grad + j), dot);
  }
  const Vec mean(sum_of(dot));
  for (int64_t j = 0; j < width; j += kLanes) {
    ((Vec::loadu(grad + j) - mean) * Vec::loadu(weights + j) * Vec(scale)).store(grad + j);
  }
}

/// Matrices of one head.
struct Forward {
  float* keys;     // [D,Tp]
  float* values;   // [T,Dp]
  float* outputs;  // [T,Dp]

  Forward(int64_t tokens, int64_t depth, Arena& arena)
      : keys(arena.take(depth * padded_row(tokens))),
        values(arena.take(tokens * padded_row(depth))),
        outputs(arena.take(tokens * padded_row(depth))) {}
};

struct Backward {
  float* values;  // [D,Tp]
  float* scores;  // [T,Tp], their gradient
  float* factor;  // [T,Dp]
  float* result;  // [T,Dp]

  Backward(int64_t tokens, int64_t depth, Arena& arena)
      : values(arena.take(depth * padded_row(tokens))),
        scores(arena.take(tokens * padded_row(tokens))),
        factor(arena.take(tokens * padded_row(depth))),
        result(arena.take(tokens * padded_row(depth))) {}
};

}  // namespace

int64_t short_attention_scratch(const ShortAttentionParams& params) {
  Arena counter(nullptr);
  const Forward matrices(params.tokens, params.depth, counter);
  return counter.taken();
}

int64_t short_attention_backward_scratch(const ShortAttentionBackwardParams& params) {
  Arena counter(nullptr);
  const Backward matrices(params.tokens, params.depth, counter);
  return counter.taken();
}

void short_attention(const ShortAttentionSlice& slice) {
  const ShortAttentionParams& params = slice.problem;
  const int64_t T = params.tokens, D = params.depth, width = params.heads * D;
  const int64_t Tp = padded_row(T), Dp = padded_row(D);
  Arena arena(slice.scratch);
  const auto [keys, values, outputs] = Forward(T, D, arena);
  for (int64_t e = slice.begin; e < slice.end; ++e) {
    for (int64_t h = 0; h < params.heads; ++h) {
      const float* query = params.qkv + e * T * 3 * width + h * D;
      float* weights = params.weights + (e * params.heads + h) * T * Tp;
      pad_transposed(T, D, query + width, 3 * width, keys, Tp);
      pad(T, D, query + 2 * width, 3 * width, values, Dp);
      product(T, Tp, D, {query, 3 * width, 1}, keys, weights);
      for (int64_t i = 0; i < T; ++i) {
        softmax(weights + i * Tp, params.causal ? i + 1 : T, Tp, params.scale);
      }
      product(T, Dp, T, {weights, Tp, 1}, values, outputs);
      unpad(T, D, outputs, Dp, params.output + e * T * width + h * D, width);
    }
  }
}

void short_attention_backward(const ShortAttentionBackwardSlice& slice) {
  const ShortAttentionBackwardParams& params = slice.problem;
  const int64_t T = params.tokens, D = params.depth, width = params.heads * D;
  const int64_t Tp = padded_row(T), Dp = padded_row(D);
  Arena arena(slice.scratch);
  const Backward matrices(T, D, arena);
  float *values = matrices.values, *scores = matrices.scores;
  for (int64_t e = slice.begin; e < slice.end; ++e) {
    for (int64_t h = 0; h < params.heads; ++h) {
      const float* query = params.qkv + e * T * 3 * width + h * D;
      const float* weights = params.weights + (e * params.heads + h) * T * Tp;
      const float* grad = params.grad_output + e * T * width + h * D;
      float* grad_query = params.grad_qkv + (query - params.qkv);
      const auto multiply = [&](View a, const float* b, int64_t b_row, float* target) {
        pad(T, D, b, b_row, matrices.factor, Dp);
        product(T, Dp, T, a, matrices.factor, matrices.result);
        unpad(T, D, matrices.result, Dp, target, 3 * width);
      };
      pad_transposed(T, D, query + 2 * width, 3 * width, values, Tp);
      product(T, Tp, D, {grad, width, 1}, values, scores);
      for (int64_t i = 0; i < T; ++i) {
        softmax_backward(weights + i * Tp, scores + i * Tp, Tp, params.scale);
      }
      multiply({scores, Tp, 1}, query + width, 3 * width, grad_query);
      multiply({scores, 1, Tp}, query, 3 * width, grad_query + width);
      multiply({weights, 1, Tp}, grad, width, grad_query + 2 * width);
    }
  }
}

}  // namespace mnemosyne::kernels::CPU_CAPABILITY
