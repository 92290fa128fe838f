#include "mnemosyne/nn/position/window_spectrum.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <numbers>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/position/frequency_draws.h"

namespace mnemosyne::nn {
namespace {

using ops::WindowShape;

constexpr double kTwoPi = 2.0 * std::numbers::pi;

WindowShape window_shape(const FourierPositionOptions& o) {
  const Choices<WindowShape> shapes = {
      {"auto", o.position_dim == 1 ? WindowShape::kDirichlet : WindowShape::kBox},
      {"dirichlet", WindowShape::kDirichlet},
      {"tent", WindowShape::kTent},
      {"box", WindowShape::kBox},
      {"l2_ball", WindowShape::kL2Ball},
      {"l1_ball", WindowShape::kL1Ball}};
  const WindowShape shape = one_of("window", o.window, shapes);
  const int64_t largest = shape == WindowShape::kDirichlet ? 1
                          : shape == WindowShape::kL1Ball  ? 2
                          : shape == WindowShape::kL2Ball  ? 3
                                                           : o.position_dim;
  if (o.position_dim > largest) {
    throw InputError("[window] expected position_dim <= " + std::to_string(largest) + " for " +
                     o.window + ", got " + std::to_string(o.position_dim));
  }
  if (!(o.smoothing > 0.0)) {
    throw InputError("[smoothing] expected a positive number, got " + std::to_string(o.smoothing));
  }
  return shape;
}

}  // namespace

WindowSpectrum::WindowSpectrum(const FourierPositionOptions& o)
    : shape_(window_shape(o)), smoothing_(o.smoothing) {
  const double start = o.initial_amplitude / static_cast<double>(o.num_components);
  amplitude = register_parameter(
      "amplitude", at::full({o.num_heads, o.num_components}, start, at::TensorOptions(at::kFloat)));
  const bool lattice = shape_ == WindowShape::kDirichlet;
  const at::Tensor spaced = log_spaced_widths(o);
  widths = register_buffer("widths", lattice ? spaced.round() : spaced);
  equispaced_ = lattice && draw_kind(o.draws) != DrawKind::kIndependent;
  if (equispaced_) {
    set_equispaced(o);
  } else {
    set_drawn(o);
  }
}

void WindowSpectrum::set_equispaced(const FourierPositionOptions& o) {
  if (!o.extent.has_value() && !o.is_exact()) {
    throw InputError(
        "[extent] expected a number for the equispaced waves of a dirichlet window, got none");
  }
  const double extent = o.extent.value_or(4.0 * o.max_width);
  const int64_t size = std::lround(std::ceil(extent)) + 1 + widths.max().item<int64_t>();
  const int64_t waves = size / 2 + 1;
  const at::Tensor xi = at::arange(waves, widths.options()) / static_cast<double>(size);
  const at::Tensor column = xi.unsqueeze(-1);
  at::Tensor spectrum =
      ops::window_spectrum(shape_, column, widths.unsqueeze(-1)) / static_cast<double>(size);
  // Every wave but the constant and, for an even size, the last stands for xi and -xi.
  const at::Tensor both = at::full({waves}, 2.0, xi.options());
  both[0] = 1.0;
  if (size % 2 == 0) both[waves - 1] = 1.0;
  spectrum = spectrum * both;
  const at::Tensor total = spectrum.abs().sum(-1, /*keepdim=*/true);
  const at::Tensor size_of_wave = (spectrum.abs() / total).sum(0);
  const int64_t kept = std::min(o.num_frequencies, waves);
  const at::Tensor chosen = std::get<0>(std::get<1>(size_of_wave.topk(kept)).sort());
  frequencies = register_buffer("frequencies", column.index_select(0, chosen).unsqueeze(0));
  weights = register_buffer("weights", spectrum.index_select(1, chosen).unsqueeze(0));
}

void WindowSpectrum::set_drawn(const FourierPositionOptions& o) {
  const int64_t heads = o.num_heads, terms = o.num_components, dim = o.position_dim;
  const int64_t count = o.num_frequencies / terms;
  if (o.num_frequencies % terms != 0) {
    throw InputError("[num_frequencies] expected a multiple of num_components (" +
                     std::to_string(terms) + "), got " + std::to_string(o.num_frequencies));
  }
  const bool tent = shape_ == WindowShape::kTent, lattice = shape_ == WindowShape::kDirichlet;
  at::Tensor eps = draw_frequencies({.law = tent ? FrequencyLaw::kFejer : FrequencyLaw::kGaussian,
                                     .kind = draw_kind(o.draws),
                                     .groups = heads * terms,
                                     .count = count,
                                     .dim = dim,
                                     .even = true,
                                     .seed = *o.seed})
                       .view({heads, terms, count, dim});
  const at::Tensor v = widths.view({terms, 1}), tau = smoothing_ * v;
  at::Tensor ratio;  // g / p, [H, T, n]
  if (lattice) {
    // A normal deviate through its distribution function is uniform.
    eps = 0.5 * (eps / std::numbers::sqrt2).erf();
    ratio = ops::window_spectrum(shape_, eps, v);
  } else if (tent) {
    eps = eps / v.unsqueeze(-1);
    ratio = at::ones_like(eps.select(-1, 0));
  } else {
    const at::Tensor sigma = 1.0 / (kTwoPi * tau);
    eps = eps * sigma.unsqueeze(-1);
    // The smoothing's Gaussian and the density cancel but for the density's constant.
    ratio = ops::window_spectrum(shape_, eps, v) *
            (sigma * std::sqrt(kTwoPi)).pow(static_cast<double>(dim));
  }
  frequencies = register_buffer("frequencies", eps.reshape({heads, terms * count, dim}));
  at::Tensor table = at::zeros({heads, terms, terms, count}, widths.options());
  table.diagonal(0, 1, 2).copy_((ratio / static_cast<double>(count)).transpose(1, 2));
  weights = register_buffer("weights", table.view({heads, terms, terms * count}));
}

at::Tensor WindowSpectrum::mask(const at::Tensor& offsets) const {
  const at::Tensor weight = at_least_float(amplitude);
  const at::Tensor windows = ops::window_mask(shape_, offsets, widths, smoothing_ * widths);
  return at::matmul(weight, windows.to(weight.scalar_type()).t());
}

ops::SpectralSum WindowSpectrum::sum() const {
  const at::Tensor weight = at_least_float(amplitude).unsqueeze(1);
  return {frequencies, at::matmul(weight, weights.to(weight.scalar_type())).squeeze(1), {}, {}};
}

}  // namespace mnemosyne::nn
