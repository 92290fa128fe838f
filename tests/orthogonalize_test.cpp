#include "mnemosyne/ops/orthogonalize.h"

#include <string>
#include <tuple>
#include <vector>

#include "tests/testing.h"

namespace mnemosyne {
namespace {

using testing::close;
using testing::identical;

/// U diag(s) V^T [M, N] with random singular vectors, double.
at::Tensor with_singular_values(const at::Tensor& s, int64_t m, int64_t n) {
  const int64_t rank = s.numel();
  const auto u = std::get<0>(at::linalg_qr(at::randn({m, rank}, at::kDouble)));
  const auto v = std::get<0>(at::linalg_qr(at::randn({n, rank}, at::kDouble)));
  return at::matmul(u * s, v.t());
}

TEST(Orthogonalize, ExactIsThePolarFactor) {
  at::manual_seed(1);
  const at::Tensor x = at::randn({2, 7, 5}, at::kDouble);
  const at::Tensor y = ops::orthogonalize_exact(x);
  EXPECT_TRUE(close(y.mT().matmul(y), at::eye(5, at::kDouble).expand({2, 5, 5}), {0, 1e-12}));
  // The polar decomposition x = y h has a symmetric positive definite h.
  const at::Tensor h = y.mT().matmul(x);
  EXPECT_TRUE(close(h, h.mT(), {0, 1e-12}));
  EXPECT_GT(at::linalg_eigvalsh(h).min().item<double>(), 0);
}

TEST(Orthogonalize, ReferencePutsSingularValuesNearOneAndKeepsSingularVectors) {
  at::manual_seed(2);
  const at::Tensor s = at::logspace(0, -3, 48, 10, at::kDouble);
  const at::Tensor x = with_singular_values(s, 48, 80);
  const at::Tensor y = ops::orthogonalize_reference(x);
  const at::Tensor values = ops::orthogonalize_exact(x).t().matmul(y);
  const at::Tensor spectrum = at::linalg_eigvalsh(values).slice(0, 80 - 48);
  EXPECT_TRUE(close(values, values.t(), {0, 1e-9}));
  EXPECT_GT(spectrum.min().item<double>(), .85);
  EXPECT_LT(spectrum.max().item<double>(), 1.15);
}

}  // namespace
}  // namespace mnemosyne
