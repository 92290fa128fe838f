#include "mnemosyne/kernels/lstm_step.h"

#include <ATen/cpu/vec/vec.h>

namespace mnemosyne::kernels::CPU_CAPABILITY {
namespace {

using Vec = at::vec::Vectorized<float>;

// Coordinates of a tile: two vectors, so that each weight that is broadcast serves two
// multiplications.
constexpr int64_t kWidth = 2 * Vec::size();
constexpr int64_t kMaxRows = 2 * kMaxLstmHidden;

inline Vec sigmoid(const Vec& x) { return Vec(1.0f) / (Vec(1.0f) + x.neg().exp()); }

// By the sigmoid: its absolute error of 1e-7 is all that a gate needs.
inline Vec tanh_of(const Vec& x) { return at::vec::fmadd(Vec(2.0f), sigmoid(x + x), Vec(-1.0f)); }

// `rows` rows of `count` <= kWidth numbers to rows of kWidth, the rest zero.
void load_rows(const float* source, int64_t stride, int64_t rows, int64_t count, float* target) {
  for (int64_t j = 0; j < rows; ++j) {
    for (int64_t i = 0; i < count; ++i) target[j * kWidth + i] = source[j * stride + i];
    for (int64_t i = count; i < kWidth; ++i) target[j * kWidth + i] = 0.0f;
  }
}

void store_row(const float* source, int64_t count, float* target) {
  for (int64_t i = 0; i < count; ++i) target[i] = source[i];
}

// gates [4H, kWidth] = matrix [4H, rows] inputs [rows, kWidth] + bias. 4H is a multiple of the
// block.
void multiply(const LstmLayer& layer, int64_t num_gates, const float* inputs, int64_t rows,
              float* gates) {
  constexpr int64_t kBlock = 4;
  for (int64_t k = 0; k < num_gates; k += kBlock) {
    Vec low[kBlock], high[kBlock];
    for (int64_t r = 0; r < kBlock; ++r) low[r] = high[r] = Vec(layer.bias[k + r]);
    for (int64_t j = 0; j < rows; ++j) {
      const Vec x = Vec::loadu(inputs + j * kWidth);
      const Vec y = Vec::loadu(inputs + j * kWidth + Vec::size());
      for (int64_t r = 0; r < kBlock; ++r) {
        const Vec w(layer.matrix[(k + r) * rows + j]);
        low[r] = at::vec::fmadd(w, x, low[r]);
        high[r] = at::vec::fmadd(w, y, high[r]);
      }
    }
    for (int64_t r = 0; r < kBlock; ++r) {
      low[r].store(gates + (k + r) * kWidth);
      high[r].store(gates + (k + r) * kWidth + Vec::size());
    }
  }
}

// c <- f c + i g and h <- o tanh(c) for one tile; h also goes to `next_inputs` [H, kWidth].
void activate(const LstmLayer& layer, int64_t num_hidden, int64_t stride, int64_t offset,
              int64_t count, const float* gates, float* next_inputs) {
  float cell[kWidth];
  for (int64_t j = 0; j < num_hidden; ++j) {
    float* stored = layer.cell + j * stride + offset;
    load_rows(stored, stride, 1, count, cell);
    for (int64_t half = 0; half < kWidth; half += Vec::size()) {
      const auto gate = [&](int64_t which) {
        return Vec::loadu(gates + (which * num_hidden + j) * kWidth + half);
      };
      const Vec c = at::vec::fmadd(sigmoid(gate(1)), Vec::loadu(cell + half),
                                   sigmoid(gate(0)) * tanh_of(gate(2)));
      c.store(cell + half);
      (sigmoid(gate(3)) * tanh_of(c)).store(next_inputs + j * kWidth + half);
    }
    store_row(cell, count, stored);
    store_row(next_inputs + j * kWidth, count, layer.hidden + j * stride + offset);
  }
}

}  // namespace

void lstm_step(const LstmStepSlice& slice) {
  const LstmStepParams& p = slice.problem;
  float inputs[kMaxRows * kWidth], upper[kMaxRows * kWidth];
  float gates[4 * kMaxLstmHidden * kWidth];
  const int64_t H = p.num_hidden;
  for (int64_t offset = slice.begin; offset < slice.end; offset += kWidth) {
    const int64_t count = slice.end - offset < kWidth ? slice.end - offset : kWidth;
    load_rows(p.features + offset, p.feature_stride, p.num_features, count, inputs);
    load_rows(p.layers[0].hidden + offset, p.state_stride, H, count,
              inputs + p.num_features * kWidth);
    multiply(p.layers[0], 4 * H, inputs, p.num_features + H, gates);
    load_rows(p.layers[1].hidden + offset, p.state_stride, H, count, upper + H * kWidth);
    activate(p.layers[0], H, p.state_stride, offset, count, gates, upper);
    multiply(p.layers[1], 4 * H, upper, 2 * H, gates);
    activate(p.layers[1], H, p.state_stride, offset, count, gates, inputs);
    for (int64_t i = 0; i < count; ++i) {
      float sum = p.output_bias;
      for (int64_t j = 0; j < H; ++j) sum += p.output_weight[j] * inputs[j * kWidth + i];
      p.output[offset + i] = sum;
    }
  }
}

}  // namespace mnemosyne::kernels::CPU_CAPABILITY
