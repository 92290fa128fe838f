#include "mnemosyne/optim/newton_schulz.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/where.h>

#include <cmath>

namespace mnemosyne::optim {
namespace {

constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315;
constexpr double kSmallestNorm = 1e-7;

}  // namespace

at::Tensor newton_schulz(at::Tensor x, int64_t num_iterations) {
  const bool tall = x.size(0) > x.size(1);
  if (tall) x = x.t();
  at::Tensor norm = x.norm();
  if (!x.is_cpu() || !std::isfinite(norm.item<double>())) {
    // In double precision where the squares are too large for float.
    const at::Tensor precise = at::linalg_vector_norm(x, 2, {}, false, at::kDouble);
    norm = at::where(at::isfinite(norm), norm, precise.to(x.scalar_type()));
  }
  x = x.div(norm.clamp_min(kSmallestNorm));
  for (int64_t i = 0; i < num_iterations; ++i) {
    const at::Tensor gram = x.mm(x.t());
    x = at::addmm(x, at::addmm(gram, gram, gram, kB, kC), x, kA);
  }
  return tall ? x.t() : x;
}

}  // namespace mnemosyne::optim
