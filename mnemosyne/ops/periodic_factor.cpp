#include "mnemosyne/ops/periodic_factor.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/fft_fftn.h>
#include <ATen/ops/imag.h>
#include <ATen/ops/meshgrid.h>
#include <ATen/ops/real.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <string>
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

}  // namespace

PeriodicGrid periodic_grid(double extent, double spacing, int64_t dim) {
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
  // Of a wave and its negative, the one whose first coordinate other than zero is positive.
  at::Tensor sign = at::zeros_like(lags.select(-1, 0));
  for (int64_t axis = dim - 1; axis >= 0; --axis) {
    const at::Tensor here = lags.select(-1, axis).sign();
    sign = here + (here == 0).to(at::kDouble) * sign;
  }
  const at::Tensor waves = (sign > 0).nonzero().squeeze(-1);
  return {lags * spacing, waves, lags.index_select(0, waves) / (points * spacing)};
}

PeriodicFactor largest_waves(const at::Tensor& values, const PeriodicGrid& grid, int64_t count) {
  const int64_t dim = grid.frequencies.size(-1), heads = values.size(0);
  const int64_t size =
      std::llround(std::pow(static_cast<double>(values.size(-1)), 1.0 / static_cast<double>(dim)));
  std::vector<int64_t> shape(static_cast<size_t>(dim + 1), size), axes;
  shape[0] = heads;
  for (int64_t axis = 1; axis <= dim; ++axis) axes.push_back(axis);
  const at::Tensor spectrum = at::fft_fftn(values.reshape(shape), {}, axes, "forward")
                                  .reshape({heads, -1})
                                  .index_select(1, grid.waves.to(values.device()));
  const at::Tensor chosen =
      std::get<1>(spectrum.detach().abs().topk(std::min(count, grid.waves.size(0))));  // [H, R]
  const at::Tensor kept = spectrum.gather(1, chosen);
  const at::Tensor frequencies = grid.frequencies.to(values.device())
                                     .index_select(0, chosen.reshape({-1}))
                                     .view({heads, chosen.size(1), dim});
  return {values.mean(-1), {frequencies, 2.0 * at::real(kept), -2.0 * at::imag(kept), {}}};
}

PositionFeatures factor_features(const PeriodicFactor& factor, const at::Tensor& positions) {
  const PositionFeatures waves = fourier_features(factor.sum, positions);
  const PositionFeatures constant = constant_feature(factor.constant, waves.query);
  return {at::cat({constant.query, waves.query}, -1), at::cat({constant.key, waves.key}, -1), {}};
}

}  // namespace mnemosyne::ops
