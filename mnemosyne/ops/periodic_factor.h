#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "mnemosyne/ops/fourier_features.h"

namespace mnemosyne::ops {

/// What is known of a function of offsets z before it is evaluated: nothing, h(z) = h(-z), or that
/// it depends on |z| alone.
enum class GridSymmetry { kNone, kEven, kRadial };

/// Offsets on a regular grid, and the waves that are periodic on it: how any function of an offset
/// becomes a sum of waves without drawing any. M = odd number of points per axis; P = offsets at
/// which a function of the symmetry can differ, M^D without one.
struct PeriodicGrid {
  at::Tensor offsets;  ///< [P, D].
  at::Tensor points;   ///< [M^D]: which of them each point is like, in the order of the discrete
                       ///< Fourier transform.
  at::Tensor waves;    ///< [K], K = (M^D - 1) / 2: one of each pair xi, -xi, without 0.
  at::Tensor frequencies;  ///< [K, D], float64.
};

/// The grid that covers offsets up to `extent` in each direction at `spacing`. InputError when it
/// would have more than 2^18 points.
PeriodicGrid periodic_grid(double extent, double spacing, int64_t dim,
                           GridSymmetry symmetry = GridSymmetry::kNone);

/// The same on the device of `like`, as a step of a program that is traced: there a tensor that was
/// made before is a constant of the program, or none at all.
PeriodicGrid periodic_grid_like(const at::Tensor& like, double extent, double spacing, int64_t dim,
                                GridSymmetry symmetry);

/// A constant and waves: h(z) = constant + sum(z).
struct PeriodicFactor {
  at::Tensor constant;  ///< [H].
  SpectralSum sum;      ///< [H, R].
};

/// The R largest waves per head of h, given at the offsets of the grid [H, P]. With R = K (R is cut
/// to it) it is h itself at the points of the grid. Which waves are kept follows the values;
/// differentiable in them otherwise.
PeriodicFactor largest_waves(const at::Tensor& values, const PeriodicGrid& grid, int64_t count);

/// Features of the factor: N = 2R + 1, the constant first.
PositionFeatures factor_features(const PeriodicFactor& factor, const at::Tensor& positions);

}  // namespace mnemosyne::ops
