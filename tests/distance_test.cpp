#include "mnemosyne/ops/distance.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <numbers>

#include "testing.h"

namespace mnemosyne::ops {
namespace {

using testing::close;

at::Tensor derivative(const at::Tensor& y, const at::Tensor& x) {
  return torch::autograd::grad({y.sum()}, {x}, {}, /*retain_graph=*/true, /*create_graph=*/true)
      .front();
}

TEST(Distance, IsTheNormWithDerivativesOfZeroAtZero) {
  at::manual_seed(1);
  at::Tensor z = at::randn({6, 3}, at::kDouble);
  z[2].zero_();
  z.requires_grad_();
  EXPECT_TRUE(close(distance(z), z.norm(2, {-1}), {1e-15, 0}));
  const at::Tensor first = derivative(distance(z), z);
  EXPECT_TRUE(close(first, derivative(z.norm(2, {-1}), z), {1e-14, 0}));
  const at::Tensor second = derivative(first.square(), z);
  EXPECT_TRUE(second.isfinite().all().item<bool>());
  EXPECT_EQ(second[2].abs().max().item<double>(), 0.0);
}

/// Its derivatives in u = (pi x)^2 from the power series of sin(sqrt u) / sqrt u in long double.
TEST(Distance, SincOfASquareIsSmooth) {
  const auto series = [](double u, int order) {
    long double sum = 0, term = 1;  // of (-u)^k / (2k + 1)!, differentiated `order` times
    for (int k = 0; k < 60; ++k) {
      if (k > 0) term /= -(2.0L * k) * (2.0L * k + 1);
      long double falling = 1;
      for (int i = 0; i < order; ++i) falling *= k - i;
      if (k >= order) sum += term * falling * std::pow(static_cast<long double>(u), k - order);
    }
    return static_cast<double>(sum);
  };
  const double scale = std::numbers::pi * std::numbers::pi;
  at::Tensor square =
      at::tensor({0.0, 1e-30, 1e-8, 0.01, 0.02533, 0.0254, 0.3, 2.0, 30.0}, at::kDouble);
  for (const auto& [type, tolerance] :
       {std::pair{at::kDouble, 1e-13}, std::pair{at::kFloat, 2e-5}}) {
    const at::Tensor x = square.to(type).requires_grad_();
    at::Tensor value = sinc_of_square(x);
    for (int order = 0; order < 3; ++order) {
      for (int64_t i = 0; i < x.numel(); ++i) {
        const double expected = series(scale * x[i].item<double>(), order) * std::pow(scale, order);
        EXPECT_NEAR(value[i].item<double>(), expected, tolerance * std::pow(scale, order))
            << order << " " << square[i].item<double>();
      }
      if (order < 2) value = derivative(value, x);
    }
  }
}

}  // namespace
}  // namespace mnemosyne::ops
