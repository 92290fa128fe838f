#include "mnemosyne/ops/position_window.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/erf.h>
#include <ATen/ops/sinc.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <math.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace mnemosyne::ops {
namespace {

constexpr double kPi = std::numbers::pi;
constexpr double kTiny = 1e-12;
// Of a ball's radial integral, over its half-width: nearer to zero it cancels.
constexpr double kSmallestRadius = 1e-6;
// Nodes of the rule that smooths a disc; its error falls exponentially (see smooth_disc).
constexpr int64_t kDiscNodes = 256;

// A step of half-width v at distance x, smoothed: P(|x + tau n| <= v) for n ~ N(0, 1).
at::Tensor smooth_step(const at::Tensor& x, const at::Tensor& v, const at::Tensor& tau) {
  const at::Tensor scale = tau * std::numbers::sqrt2;
  return 0.5 * (at::erf((v + x) / scale) + at::erf((v - x) / scale));
}

// (bell(v - rho) - bell(v + rho)) / rho of bells of deviation tau: near zero, where that cancels,
// by the series of sinh.
at::Tensor ball_edge(const at::Tensor& rho, const at::Tensor& v, const at::Tensor& tau) {
  const auto bell = [&](const at::Tensor& x) { return (-0.5 * (x / tau).square()).exp(); };
  const at::Tensor slope = v / tau.square(), near = slope * rho < 1.0;
  const at::Tensor square = (slope * rho).square().clamp_max(1.0);
  at::Tensor series = 1.0 + square / 272.0;
  for (int k = 7; k > 0; --k) series = 1.0 + square * series / (2.0 * k * (2.0 * k + 1.0));
  const at::Tensor far = at::where(near, 1.0, rho);
  return at::where(near, 2.0 * slope * bell(v) * bell(rho) * series,
                   (bell(v - far) - bell(v + far)) / far);
}

// A ball in R^3 at radius rho: the radial integral in closed form.
at::Tensor smooth_ball(const at::Tensor& rho, const at::Tensor& v, const at::Tensor& tau) {
  return smooth_step(rho, v, tau) - tau * ball_edge(rho, v, tau) / std::sqrt(2.0 * kPi);
}

// A disc at radius rho, cut into strips x = v sin t of half-length v cos t:
// int N(v sin t - rho; tau) erf(v cos t / (sqrt 2 tau)) v cos t dt over a half turn. The integrand
// is smooth and periodic, for which the midpoint rule converges exponentially.
at::Tensor smooth_disc(const at::Tensor& rho, const at::Tensor& v, const at::Tensor& tau) {
  const at::Tensor t =
      ((at::arange(kDiscNodes, rho.options()) + 0.5) / static_cast<double>(kDiscNodes) - 0.5) * kPi;
  const at::Tensor half = v.unsqueeze(-1) * t.cos(), spread = tau.unsqueeze(-1);
  const at::Tensor distance = (v.unsqueeze(-1) * t.sin() - rho.unsqueeze(-1)) / spread;
  const at::Tensor strip = (-0.5 * distance.square()).exp() / (spread * std::sqrt(2.0 * kPi)) *
                           at::erf(half / (spread * std::numbers::sqrt2)) * half;
  return strip.sum(-1) * (kPi / static_cast<double>(kDiscNodes));
}

// [..., 2] turned by 45 degrees, which makes a square of the L1 ball.
at::Tensor turned(const at::Tensor& z) {
  const at::Tensor x = z.select(-1, 0), y = z.select(-1, 1);
  return at::stack({x + y, x - y}, -1) * std::numbers::sqrt2 * 0.5;
}

at::Tensor ball_mask(const at::Tensor& z, const at::Tensor& widths, const at::Tensor& tau) {
  // Both are functions of the square: a start at rounding has finite derivatives at zero.
  const at::Tensor start = (kSmallestRadius * widths.min()).square();
  const at::Tensor rho = (z.square().sum(-1, /*keepdim=*/true) + start).sqrt();
  return z.size(-1) == 2 ? smooth_disc(rho, widths, tau) : smooth_ball(rho, widths, tau);
}

// POSIX's j1, elementwise: ATen's is wrong by 3e-7 around x = 5.
at::Tensor bessel_j1(const at::Tensor& x) {
  const at::Tensor source = x.cpu().contiguous(), result = at::empty_like(source);
  const double* first = source.const_data_ptr<double>();
  std::transform(first, first + source.numel(), result.mutable_data_ptr<double>(),
                 [](double value) { return ::j1(value); });
  return result.to(x.device());
}

at::Tensor ball_spectrum(const at::Tensor& xi, const at::Tensor& v) {
  const at::Tensor rho = xi.norm(2, {-1}).clamp_min(kTiny), x = 2.0 * kPi * v * rho;
  if (xi.size(-1) == 2) return v / rho * bessel_j1(x);
  // (v / rho)^(3/2) J_{3/2}(x), with its series where the difference cancels.
  const at::Tensor series = 4.0 / 3.0 * kPi * v.pow(3) * (1.0 - x.square() / 10.0);
  return at::where(x < 1e-3, series, (x.sin() - x * x.cos()) / (2.0 * kPi * kPi * rho.pow(3)));
}

}  // namespace

at::Tensor window_mask(WindowShape shape, const at::Tensor& offsets, const at::Tensor& widths,
                       const at::Tensor& tau) {
  const at::Tensor z = offsets.to(at::kDouble), v = widths.to(at::kDouble);
  const bool line = z.size(-1) == 1;
  switch (shape) {
    case WindowShape::kDirichlet:
      // By the sign, which autograd knows to be constant.
      return ((v + 1e-6 - z.abs()).sign() + 1.0) * 0.5;
    case WindowShape::kTent:
      return (1.0 - z.abs().unsqueeze(-1) / v).clamp_min(0).prod(-2);
    case WindowShape::kL2Ball:
      if (!line) return ball_mask(z, v, tau);
      break;
    case WindowShape::kL1Ball:
      if (!line) {
        return smooth_step(turned(z).unsqueeze(-1), v * (std::numbers::sqrt2 * 0.5), tau).prod(-2);
      }
      break;
    case WindowShape::kBox:
      break;
  }
  return smooth_step(z.unsqueeze(-1), v, tau).prod(-2);
}

at::Tensor window_spectrum(WindowShape shape, const at::Tensor& frequencies,
                           const at::Tensor& widths) {
  const at::Tensor xi = frequencies.to(at::kDouble), v = widths.to(at::kDouble);
  const bool line = xi.size(-1) == 1;
  switch (shape) {
    case WindowShape::kDirichlet: {
      const at::Tensor half = xi.squeeze(-1) * kPi, sine = half.sin();
      const at::Tensor count = 2.0 * v + 1.0;
      return at::where(sine.abs() < kTiny, count, (count * half).sin() / sine);
    }
    case WindowShape::kTent:
      return (v.unsqueeze(-1) * at::sinc(v.unsqueeze(-1) * xi).square()).prod(-1);
    case WindowShape::kL2Ball:
      if (!line) return ball_spectrum(xi, v);
      break;
    case WindowShape::kL1Ball:
      if (!line) {
        const at::Tensor side = v * std::numbers::sqrt2;
        return (side.unsqueeze(-1) * at::sinc(side.unsqueeze(-1) * turned(xi))).prod(-1);
      }
      break;
    case WindowShape::kBox:
      break;
  }
  const at::Tensor side = 2.0 * v.unsqueeze(-1);
  return (side * at::sinc(side * xi)).prod(-1);
}

}  // namespace mnemosyne::ops
