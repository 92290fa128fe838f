#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "mnemosyne/ops/fourier_features.h"

namespace mnemosyne::ops {

/// Offsets on a regular grid, and the waves that are periodic on it: how any function of an offset
/// becomes a sum of waves without drawing any. M = odd number of points per axis.
struct PeriodicGrid {
  at::Tensor offsets;      ///< [M^D, D], in the order of the discrete Fourier transform.
  at::Tensor waves;        ///< [K], K = (M^D - 1) / 2: one of each pair xi, -xi, without 0.
  at::Tensor frequencies;  ///< [K, D], float64.
};

/// The grid that covers offsets up to `extent` in each direction at `spacing`. InputError when it
/// would have more than 2^18 points.
PeriodicGrid periodic_grid(double extent, double spacing, int64_t dim);

/// A constant and waves: h(z) = constant + sum(z).
struct PeriodicFactor {
  at::Tensor constant;  ///< [H].
  SpectralSum sum;      ///< [H, R].
};

/// The R largest waves per head of h, given on the grid [H, M^D]. With R = K (R is cut to it) it is
/// h itself at the points of the grid. Which waves are kept follows the values; differentiable in
/// them otherwise.
PeriodicFactor largest_waves(const at::Tensor& values, const PeriodicGrid& grid, int64_t count);

/// Features of the factor: N = 2R + 1, the constant first.
PositionFeatures factor_features(const PeriodicFactor& factor, const at::Tensor& positions);

}  // namespace mnemosyne::ops
