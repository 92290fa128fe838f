#include "mnemosyne/optim/low_rank.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/where.h>

namespace mnemosyne::optim {
namespace {

constexpr double kTiny = 1e-30;
constexpr double kGoldenAngle = 2.399963229728653;

/// Columns at a length of 1 (or 0): the iteration squares singular values, and they may be far
/// apart.
at::Tensor with_unit_columns(const at::Tensor& x) {
  const at::Tensor scaled = x / x.abs().amax(0, /*keepdim=*/true).clamp_min(kTiny);
  return scaled / scaled.square().sum(0, /*keepdim=*/true).sqrt().clamp_min(kTiny);
}

/// Dense directions, no two alike, in the form of `right` [K, R], made on its device.
at::Tensor waves(const at::Tensor& right) {
  const auto numbers = [&](int64_t count) { return at::arange(1, count + 1, right.options()); };
  const at::Tensor angles = kGoldenAngle * numbers(right.size(1));
  return (numbers(right.size(0)).unsqueeze(1) * angles).cos();
}

}  // namespace

at::Tensor product(const LowRank& factors) { return factors.left.matmul(factors.right.t()); }

LowRank follow(const at::Tensor& x, const LowRank& before) {
  const at::Tensor& right = before.right;
  const at::Tensor held = right.abs().amax(0, /*keepdim=*/true) > 0;
  const at::Tensor start = with_unit_columns(at::where(held, right, waves(right)));
  const at::Tensor size = x.abs().amax().clamp_min(kTiny);
  const at::Tensor left =
      std::get<0>(at::linalg_qr(with_unit_columns((x / size).matmul(start)), "reduced"));
  return {.left = left.contiguous(), .right = x.t().matmul(left).contiguous()};
}

}  // namespace mnemosyne::optim
