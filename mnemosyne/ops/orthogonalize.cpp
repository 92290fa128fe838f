#include "mnemosyne/ops/orthogonalize.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/linalg_inv.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <array>
#include <vector>

namespace mnemosyne::ops {
namespace {

struct PartialFraction {
  double weight;
  double pole;
};

// Made by scripts/zolotarev.py for the interval [5e-4, 1].
constexpr std::array<PartialFraction, 3> kSign = {{
    {0.00222660, 1.12812575e-06},
    {0.04243258, 5.00000000e-04},
    {0.98685764, 2.21606501e-01},
}};

at::Tensor in_double(const at::Tensor& x) {
  TORCH_CHECK(x.dim() >= 2, "[orthogonalize] expected x of shape [..., M, N], got ", x.sizes());
  TORCH_CHECK(at::isFloatingType(x.scalar_type()),
              "[orthogonalize] expected a floating-point dtype, got ", x.scalar_type());
  return x.to(at::kDouble);
}

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
  const at::Tensor largest = wide.abs().amax({-2, -1}, /*keepdim=*/true);
  wide = wide / at::where(largest > 0, largest, 1.0);

  const at::Tensor gram = at::matmul(wide, wide.mT());
  const at::Tensor frobenius = gram.square().sum({-2, -1}, /*keepdim=*/true).sqrt();
  const at::Tensor row_sum = gram.abs().sum(-1, /*keepdim=*/true).amax(-2, /*keepdim=*/true);
  at::Tensor bound = at::minimum(frobenius, row_sum);
  bound = at::where(largest > 0, bound, 1.0);

  const at::Tensor identity = at::eye(gram.size(-1), gram.options());
  at::Tensor function = at::zeros_like(gram);
  for (const PartialFraction& term : kSign) {
    function = function + term.weight * at::linalg_inv(gram / bound + term.pole * identity);
  }
  const at::Tensor result = at::matmul(function, wide / bound.sqrt());
  return (tall ? result.mT() : result).contiguous().to(x.scalar_type());
}

void orthogonalize_(const MatrixRef* matrices, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const at::Tensor matrix =
        at::from_blob(matrices[i].data, {matrices[i].rows, matrices[i].columns}, at::kFloat);
    matrix.copy_(orthogonalize_reference(matrix));
  }
}

void orthogonalize_(at::TensorList matrices) {
  std::vector<MatrixRef> references;
  references.reserve(matrices.size());
  for (const at::Tensor& matrix : matrices) {
    TORCH_CHECK(matrix.dim() == 2 && matrix.is_contiguous() && matrix.scalar_type() == at::kFloat &&
                    matrix.device().is_cpu(),
                "[orthogonalize_] expected contiguous float32 matrices on the CPU, got ",
                matrix.toString(), " ", matrix.sizes());
    references.push_back({matrix.data_ptr<float>(), matrix.size(0), matrix.size(1)});
  }
  orthogonalize_(references.data(), static_cast<int64_t>(references.size()));
}

}  // namespace mnemosyne::ops
