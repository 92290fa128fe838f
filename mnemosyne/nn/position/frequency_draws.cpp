#include "mnemosyne/nn/position/frequency_draws.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/erfinv.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tan.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/nn/feature_map.h"

namespace mnemosyne::nn {
namespace {

constexpr double kPi = std::numbers::pi;
constexpr double kEdge = 1e-9;

// Si(x) = int_0^x sin t / t dt for x >= 0: the power series, then the asymptotic expansion, each
// where its error is below 1e-7.
double sine_integral(double x) {
  if (x < 18.0) {
    double term = x, sum = x;
    for (int k = 1; k < 50; ++k) {
      term *= -x * x / ((2.0 * k) * (2.0 * k + 1.0));
      sum += term / (2.0 * k + 1.0);
    }
    return sum;
  }
  double f = 0.0, g = 0.0, term = 1.0 / x;
  for (int k = 0; k < 8; ++k) {
    f += term;
    g += term * (2.0 * k + 1.0) / x;
    term *= -(2.0 * k + 1.0) * (2.0 * k + 2.0) / (x * x);
  }
  return kPi / 2.0 - f * std::cos(x) - g * std::sin(x);
}

// The quantile of the density sinc^2(x) = (sin pi x / (pi x))^2 by bisection. Its distribution
// function at x > 0 is 1/2 + (Si(2 pi x) - sin^2(pi x) / (pi x)) / pi, and 1 - F < 1 / (pi^2 x).
double fejer_quantile(double u) {
  const double upper = std::max(u, 1.0 - u);
  double low = 0.0, high = 1.0 / (kPi * kPi * (1.0 - upper));
  for (int step = 0; step < 60; ++step) {
    const double x = 0.5 * (low + high), s = std::sin(kPi * x);
    const double mass =
        0.5 + (sine_integral(2.0 * kPi * x) - (x > 0.0 ? s * s / (kPi * x) : 0.0)) / kPi;
    (mass < upper ? low : high) = x;
  }
  return u < 0.5 ? -low : low;
}

at::Tensor fejer_draws(const at::Tensor& uniform) {
  const at::Tensor result = at::empty(uniform.sizes(), uniform.options());
  const at::Tensor source = uniform.contiguous();
  std::transform(source.const_data_ptr<double>(), source.const_data_ptr<double>() + source.numel(),
                 result.mutable_data_ptr<double>(), fejer_quantile);
  return result;
}

// Uniform points [G, N, D]. Quasi-random: coordinate 0 is equispaced, the others follow the powers
// of 1 / phi_D, phi_D the positive root of x^D = x + 1 (D = dimensions but one, plus one), each
// group shifted at random modulo 1.
at::Tensor uniform_points(const FrequencyDraws& draws, int64_t dim,
                          const at::Generator& generator) {
  const at::TensorOptions options = at::TensorOptions(at::kDouble);
  if (draws.kind == DrawKind::kIndependent) {
    return at::rand({draws.groups, draws.count, dim}, generator, options);
  }
  const at::Tensor index = at::arange(draws.count, options);
  double root = 1.5;
  for (int step = 0; step < 60; ++step) root = std::pow(1.0 + root, 1.0 / static_cast<double>(dim));
  std::vector<at::Tensor> axes{index / static_cast<double>(draws.count)};
  for (int64_t axis = 1; axis < dim; ++axis) {
    axes.push_back(index * std::pow(1.0 / root, static_cast<double>(axis)));
  }
  const at::Tensor shift = at::rand({draws.groups, 1, dim}, generator, options);
  at::Tensor points = at::stack(axes, -1) + shift;
  points = points - points.floor();
  if (draws.even) points.select(-1, 0).mul_(0.5).add_(0.5);
  return points;
}

at::Tensor normal_quantile(const at::Tensor& uniform) {
  const at::Tensor inside = uniform.clamp(kEdge, 1.0 - kEdge);
  return at::erfinv(2.0 * inside - 1.0) * std::numbers::sqrt2;
}

at::Tensor orthogonal_normal(const FrequencyDraws& draws) {
  std::vector<at::Tensor> groups;
  for (int64_t group = 0; group < draws.groups; ++group) {
    const uint64_t seed = draws.seed * 0x9E3779B97F4A7C15ULL + static_cast<uint64_t>(group);
    groups.push_back(draw_omega(draws.count, draws.dim, seed));
  }
  return at::stack(groups);
}

// A multivariate t is a normal vector over the root of an independent chi-squared mean.
at::Tensor student_draws(const at::Tensor& gaussian, const at::Tensor& others) {
  return gaussian / others.square().mean({-1}, /*keepdim=*/true).sqrt();
}

}  // namespace

DrawKind draw_kind(const std::string& name) {
  static const Choices<DrawKind> kinds = {{"quasi_random", DrawKind::kQuasiRandom},
                                          {"orthogonal", DrawKind::kOrthogonal},
                                          {"independent", DrawKind::kIndependent}};
  return one_of("draws", name, kinds);
}

at::Tensor draw_frequencies(const FrequencyDraws& draws) {
  const at::NoGradGuard no_grad;
  const at::Generator generator = tensor_generator(draws.seed);
  const bool is_student = draws.law == FrequencyLaw::kStudent;
  if (draws.kind == DrawKind::kOrthogonal) {
    if (draws.law != FrequencyLaw::kGaussian && !is_student) {
      throw InputError(
          "[draws] expected quasi_random or independent for this spectrum, got orthogonal");
    }
    const at::Tensor gaussian = orthogonal_normal(draws);
    if (!is_student) return gaussian;
    const at::TensorOptions options = at::TensorOptions(at::kDouble);
    return student_draws(
        gaussian,
        normal_quantile(at::rand({draws.groups, draws.count, draws.degrees}, generator, options)));
  }
  const int64_t dim = draws.dim + (is_student ? draws.degrees : 0);
  const at::Tensor points = uniform_points(draws, dim, generator).clamp(kEdge, 1.0 - kEdge);
  switch (draws.law) {
    case FrequencyLaw::kCauchy:
      return at::tan((points - 0.5) * kPi);
    case FrequencyLaw::kFejer:
      return fejer_draws(points);
    case FrequencyLaw::kGaussian:
    case FrequencyLaw::kStudent:
      break;
  }
  const at::Tensor gaussian = normal_quantile(points);
  if (!is_student) return gaussian;
  return student_draws(gaussian.narrow(-1, 0, draws.dim),
                       gaussian.narrow(-1, draws.dim, draws.degrees));
}

}  // namespace mnemosyne::nn
