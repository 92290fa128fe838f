#pragma once

#include <cstdint>

#include "mnemosyne/kernels/dispatch.h"

namespace mnemosyne::kernels {

constexpr int64_t kMaxLstmHidden = 64;
constexpr int64_t kMaxLstmFeatures = 8;

/// H = hidden units, I = inputs of a layer. Gates in the order input, forget, candidate, output.
struct LstmLayer {
  const float* matrix;  ///< [4H, I + H], row-major
  const float* bias;    ///< [4H]
  float* hidden;        ///< row j at hidden + j * state_stride, read and written
  float* cell;          ///< likewise
};

/// One step of two LSTM layers and a linear output for the coordinates of a tensor, which are its
/// items and independent. A row holds one number of every coordinate, so that neighbours in memory
/// are neighbouring coordinates.
struct LstmStepParams {
  LstmLayer layers[2];
  int64_t num_hidden;     ///< H <= kMaxLstmHidden
  const float* features;  ///< row j at features + j * feature_stride
  int64_t num_features;   ///< <= kMaxLstmFeatures
  int64_t feature_stride;
  int64_t state_stride;
  const float* output_weight;  ///< [H]
  float output_bias;
  float* output;  ///< [size]
  int64_t size;
};

using LstmStepSlice = Slice<LstmStepParams>;

}  // namespace mnemosyne::kernels

MN_DECLARE_KERNEL(lstm_step, LstmStepSlice)
