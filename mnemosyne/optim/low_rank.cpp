#include "mnemosyne/optim/low_rank.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/matmul.h>

#include "mnemosyne/core/random.h"

namespace mnemosyne::optim {
namespace {

constexpr double kTiny = 1e-30;
constexpr uint64_t kSeed = 0x10;

/// Columns at a length of 1 (or 0): the iteration squares singular values, and they may be far
/// apart.
at::Tensor with_unit_columns(const at::Tensor& x) {
  const at::Tensor scaled = x / x.abs().amax(0, /*keepdim=*/true).clamp_min(kTiny);
  return scaled / scaled.square().sum(0, /*keepdim=*/true).sqrt().clamp_min(kTiny);
}

}  // namespace

at::Tensor product(const LowRank& factors) { return factors.left.matmul(factors.right.t()); }

LowRank follow(const at::Tensor& x, const LowRank& before, bool first) {
  const at::Tensor& right = before.right;
  const at::Tensor start =
      first ? seeded_normal(right.sizes(), 1.0, kSeed).to(right.device(), right.scalar_type())
            : with_unit_columns(right);
  const at::Tensor size = x.abs().amax().clamp_min(kTiny);
  const at::Tensor left =
      std::get<0>(at::linalg_qr(with_unit_columns((x / size).matmul(start)), "reduced"));
  return {.left = left.contiguous(), .right = x.t().matmul(left).contiguous()};
}

}  // namespace mnemosyne::optim
