#include "mnemosyne/ops/distance.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/where.h>

#include <numbers>

namespace mnemosyne::ops {
namespace {

// Up to here the power series, whose terms are at rounding after kTerms; beyond it the quotient,
// which cancels in its derivatives near zero.
constexpr double kSeriesEnd = 0.25;
constexpr int kTerms = 7;

}  // namespace

at::Tensor distance(const at::Tensor& z) {
  const at::Tensor square = z.square().sum(-1), none = square == 0;
  // Chosen twice: a root that is not taken may not have an infinite derivative either.
  return at::where(none, 0.0, at::where(none, 1.0, square).sqrt());
}

at::Tensor sinc_of_square(const at::Tensor& square) {
  const at::Tensor u = square * (std::numbers::pi * std::numbers::pi);
  const at::Tensor near = u < kSeriesEnd, small = u.clamp_max(kSeriesEnd);
  at::Tensor series = 1.0 - small / static_cast<double>(2 * kTerms * (2 * kTerms + 1));
  for (int k = kTerms - 1; k > 0; --k) {
    series = 1.0 - small * series / static_cast<double>(2 * k * (2 * k + 1));
  }
  const at::Tensor root = at::where(near, 1.0, u).sqrt();
  return at::where(near, series, root.sin() / root);
}

}  // namespace mnemosyne::ops
