#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_inv_ex.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <limits>

#include "mnemosyne/ops/orthogonalize/orthogonalize.h"
#include "mnemosyne/ops/orthogonalize/poles.h"

namespace mnemosyne::ops {
namespace {

at::Tensor in_double(const at::Tensor& x) {
  TORCH_CHECK(x.dim() >= 2, "[orthogonalize] expected x of shape [..., M, N], got ", x.sizes());
  TORCH_CHECK(at::isFloatingType(x.scalar_type()),
              "[orthogonalize] expected a floating-point dtype, got ", x.scalar_type());
  return x.to(at::kDouble);
}

/// Of positive definite matrices, whose errors need not be read back.
at::Tensor inverse_of(const at::Tensor& x) { return std::get<0>(at::linalg_inv_ex(x)); }

}  // namespace

at::Tensor orthogonalize_exact(const at::Tensor& x) {
  const at::Tensor wide = in_double(x);
  if (wide.numel() == 0) return x.clone();
  auto [u, s, vh] = at::linalg_svd(wide, /*full_matrices=*/false);
  const double tolerance = 1e-14 * static_cast<double>(std::max(x.size(-1), x.size(-2)));
  const at::Tensor kept = s > tolerance * s.amax(-1, /*keepdim=*/true);
  return at::matmul(u * kept.to(at::kDouble).unsqueeze(-2), vh).to(x.scalar_type());
}

at::Tensor orthogonalize_reference(const at::Tensor& x) {
  if (x.numel() == 0) return in_double(x).to(x.scalar_type());
  const bool tall = x.size(-2) > x.size(-1);
  at::Tensor wide = in_double(tall ? x.mT() : x);
  const at::Tensor finite = at::isfinite(wide).all(-1, /*keepdim=*/true).all(-2, /*keepdim=*/true);
  wide = at::where(finite, wide, 0.0);
  // The scale does not matter, so nothing depends on it that could be differentiated.
  const at::Tensor largest = wide.detach().abs().amax({-2, -1}, /*keepdim=*/true);
  wide = wide / at::where(largest > 0, largest, 1.0);

  const at::Tensor gram = at::matmul(wide, wide.mT());
  // The root has no derivative at zero.
  const at::Tensor squares = gram.square().sum({-2, -1}, /*keepdim=*/true);
  const at::Tensor frobenius = at::where(largest > 0, squares, 1.0).sqrt();
  const at::Tensor row_sum = gram.abs().sum(-1, /*keepdim=*/true).amax(-2, /*keepdim=*/true);
  at::Tensor bound = at::minimum(frobenius, row_sum);
  bound = at::where(largest > 0, bound, 1.0);
  wide = wide / bound.sqrt();

  at::Tensor result = wide;  // one row: nothing but its length to correct
  if (gram.size(-1) > 1) {
    const at::Tensor identity = at::eye(gram.size(-1), gram.options());
    at::Tensor function = at::zeros_like(gram);
    for (size_t j = 0; j < kPoles.size(); ++j) {
      function = function + kWeights[j] * inverse_of(gram / bound + kPoles[j] * identity);
    }
    result = at::matmul(function, wide);
  }
  result = at::where(finite, result, std::numeric_limits<double>::quiet_NaN());
  return (tall ? result.mT() : result).contiguous().to(x.scalar_type());
}

}  // namespace mnemosyne::ops
