#include "mnemosyne/ops/periodic_factor.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_unique.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/fft_fftn.h>
#include <ATen/ops/imag.h>
#include <ATen/ops/meshgrid.h>
#include <ATen/ops/real.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "mnemosyne/core/error.h"

namespace mnemosyne::ops {
namespace {

constexpr double kLargestGrid = 262144.0;

PositionFeatures constant_feature(const at::Tensor& constant, const at::Tensor& like) {
  const auto [split, rest] = split_weight(constant);
  const auto column = [&](const at::Tensor& t) {
    return t.unsqueeze(-1).unsqueeze(-1) + at::zeros_like(like.narrow(-1, 0, 1));
  };
  return {column(split), column(rest), {}};
}

int64_t points_per_axis(int64_t points, int64_t dim) {
  return std::llround(std::pow(static_cast<double>(points), 1.0 / static_cast<double>(dim)));
}

/// Of a wave and its negative, the one whose first coordinate other than zero is positive.
at::Tensor half_of(const at::Tensor& lags) {
  at::Tensor sign = at::zeros_like(lags.select(-1, 0));
  for (int64_t axis = lags.size(-1) - 1; axis >= 0; --axis) {
    const at::Tensor here = lags.select(-1, axis).sign();
    sign = here + (here == 0).to(at::kDouble) * sign;
  }
  return (sign > 0).nonzero().squeeze(-1);
}

/// The lags [P, D] that stand for all, and which of them each is like.
std::pair<at::Tensor, at::Tensor> distinct(const at::Tensor& lags, const at::Tensor& half,
                                           GridSymmetry symmetry) {
  const int64_t count = lags.size(0), dim = lags.size(1);
  if (symmetry == GridSymmetry::kRadial) {
    const auto [squares, points] = at::_unique(lags.square().sum(-1), true, true);
    const at::Tensor radius = squares.sqrt().unsqueeze(-1);
    return {at::cat({radius, at::zeros({radius.size(0), dim - 1}, radius.options())}, -1), points};
  }
  const at::Tensor all = at::arange(count, half.options());
  if (symmetry == GridSymmetry::kNone) return {lags, all};
  // The negative of point i is point -i modulo M along each axis.
  const int64_t size = points_per_axis(count, dim);
  std::vector<int64_t> shape(static_cast<size_t>(dim), size), axes, shifts;
  for (int64_t axis = 0; axis < dim; ++axis) {
    axes.push_back(axis);
    shifts.push_back(1);
  }
  const at::Tensor negative = all.view(shape).flip(axes).roll(shifts, axes).reshape({-1});
  at::Tensor points = at::zeros_like(all);
  const at::Tensor order = at::arange(1, half.size(0) + 1, half.options());
  points.index_copy_(0, half, order);
  points.index_copy_(0, negative.index_select(0, half), order);
  return {at::cat({at::zeros({1, dim}, lags.options()), lags.index_select(0, half)}), points};
}

}  // namespace

PeriodicGrid periodic_grid(double extent, double spacing, int64_t dim, GridSymmetry symmetry) {
  const double half = std::ceil(extent / spacing), points = 2.0 * half + 1.0;
  if (!(std::pow(points, static_cast<double>(dim)) <= kLargestGrid)) {
    throw InputError("[factor] expected a grid of at most 2^18 offsets for exp, got " +
                     std::to_string(std::llround(points)) + " per axis in " + std::to_string(dim) +
                     " dimensions: lower extent / min_width, or take square");
  }
  const int64_t size = std::llround(points);
  const at::TensorOptions options = at::TensorOptions(at::kDouble);
  const at::Tensor index = at::arange(size, options);
  const at::Tensor lag = index - (index > half).to(at::kDouble) * points;
  const std::vector<at::Tensor> axes(static_cast<size_t>(dim), lag);
  const at::Tensor lags = at::stack(at::meshgrid(axes, "ij"), -1).reshape({-1, dim});
  const at::Tensor waves = half_of(lags);
  const auto [offsets, which] = distinct(lags, waves, symmetry);
  return {offsets * spacing, which, waves, lags.index_select(0, waves) / (points * spacing)};
}

PeriodicFactor largest_waves(const at::Tensor& values, const PeriodicGrid& grid, int64_t count) {
  const int64_t dim = grid.frequencies.size(-1), heads = values.size(0);
  const at::Tensor everywhere = values.index_select(-1, grid.points.to(values.device()));
  const int64_t size = points_per_axis(everywhere.size(-1), dim);
  std::vector<int64_t> shape(static_cast<size_t>(dim + 1), size), axes;
  shape[0] = heads;
  for (int64_t axis = 1; axis <= dim; ++axis) axes.push_back(axis);
  const at::Tensor spectrum = at::fft_fftn(everywhere.reshape(shape), {}, axes, "forward")
                                  .reshape({heads, -1})
                                  .index_select(1, grid.waves.to(values.device()));
  const at::Tensor chosen =
      std::get<1>(spectrum.detach().abs().topk(std::min(count, grid.waves.size(0))));  // [H, R]
  const at::Tensor kept = spectrum.gather(1, chosen);
  const at::Tensor frequencies = grid.frequencies.to(values.device())
                                     .index_select(0, chosen.reshape({-1}))
                                     .view({heads, chosen.size(1), dim});
  return {everywhere.mean(-1), {frequencies, 2.0 * at::real(kept), -2.0 * at::imag(kept), {}}};
}

PositionFeatures factor_features(const PeriodicFactor& factor, const at::Tensor& positions) {
  const PositionFeatures waves = fourier_features(factor.sum, positions);
  const PositionFeatures constant = constant_feature(factor.constant, waves.query);
  return {at::cat({constant.query, waves.query}, -1), at::cat({constant.key, waves.key}, -1), {}};
}

}  // namespace mnemosyne::ops
