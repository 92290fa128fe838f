#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/where.h>

#include <array>
#include <limits>

#include "mnemosyne/ops/orthogonalize/orthogonalize.h"

namespace mnemosyne::ops {
namespace {

struct Quintic {
  double a;
  double b;
  double c;
};

// Made by scripts/polar_express.py for the interval [1e-3, 1].
constexpr std::array<Quintic, 5> kSteps = {{
    {8.2060759, -22.9074631, 16.4653415},
    {4.0678718, -2.8623313, 0.5185908},
    {3.9162356, -2.8266315, 0.5253175},
    {3.3121525, -2.4347444, 0.4879049},
    {2.3088200, -1.6457595, 0.4019424},
}};

}  // namespace

at::Tensor orthogonalize_polynomial(const at::Tensor& x, at::ScalarType precision) {
  TORCH_CHECK(x.dim() >= 2, "[orthogonalize_polynomial] expected x of shape [..., M, N], got ",
              x.sizes());
  TORCH_CHECK(at::isFloatingType(x.scalar_type()) && at::isFloatingType(precision),
              "[orthogonalize_polynomial] expected floating-point dtypes, got ", x.scalar_type(),
              " and ", precision);
  if (x.numel() == 0) return x.clone();
  const bool tall = x.size(-2) > x.size(-1);
  at::Tensor wide =
      (tall ? x.mT() : x)
          .reshape({-1, tall ? x.size(-1) : x.size(-2), tall ? x.size(-2) : x.size(-1)});
  if (wide.scalar_type() != at::kDouble) wide = wide.to(at::kFloat);
  const at::Tensor finite = at::isfinite(wide).all(-1, /*keepdim=*/true).all(-2, /*keepdim=*/true);
  const at::Tensor largest = wide.abs().amax({-2, -1}, /*keepdim=*/true);
  wide = wide / at::where(largest > 0, largest, 1.0);
  const at::Tensor norm = wide.square().sum({-2, -1}, /*keepdim=*/true).sqrt();
  at::Tensor y = (wide / at::where(norm > 0, norm, 1.0)).to(precision);
  for (const Quintic& step : kSteps) {
    const at::Tensor gram = at::bmm(y, y.mT());
    const at::Tensor even = at::baddbmm(gram, gram, gram, /*beta=*/step.b, /*alpha=*/step.c);
    y = at::baddbmm(y, even, y, /*beta=*/step.a);
  }
  y = at::where(finite, y, std::numeric_limits<double>::quiet_NaN());
  return (tall ? y.mT() : y).reshape(x.sizes()).contiguous().to(x.scalar_type());
}

}  // namespace mnemosyne::ops
