// Orthogonalisation by products, alone and over lists: what devices without a kernel run.
#include <limits>
#include <tuple>
#include <vector>

#include "mnemosyne/ops/orthogonalize/orthogonalize.h"
#include "mnemosyne/ops/without_kernels.h"
#include "tests/testing.h"

namespace mnemosyne {
namespace {

using testing::close;
using testing::identical;
using Shape = std::pair<int64_t, int64_t>;

/// U diag(s) V^T [M, N] with random singular vectors, double.
at::Tensor with_singular_values(const at::Tensor& s, int64_t m, int64_t n) {
  const int64_t rank = s.numel();
  const auto u = std::get<0>(at::linalg_qr(at::randn({m, rank}, at::kDouble)));
  const auto v = std::get<0>(at::linalg_qr(at::randn({n, rank}, at::kDouble)));
  return at::matmul(u * s, v.t());
}

/// Smallest and largest singular value.
std::pair<double, double> singular_range(const at::Tensor& y) {
  const at::Tensor s = at::linalg_svdvals(y.to(at::kDouble));
  return {s.min().item<double>(), s.max().item<double>()};
}

double spectral_norm(const at::Tensor& x) {
  return at::linalg_svdvals(x.to(at::kDouble)).max().item<double>();
}

TEST(OrthogonalizePolynomial, PutsSingularValuesNearOneInEveryPrecision) {
  at::manual_seed(11);
  const at::Tensor s = at::logspace(0, -2, 24, 10, at::kDouble);
  const at::Tensor x = with_singular_values(s, 24, 60);
  for (const auto precision : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const at::Tensor y = ops::orthogonalize_polynomial(x.t(), precision);
    const auto [low, high] = singular_range(y);
    EXPECT_GT(low, .84) << precision;
    EXPECT_LT(high, 1.16) << precision;
    const double rounding = precision == at::kBFloat16 ? .1 : 1e-4;
    const at::Tensor product = y.t().matmul(ops::orthogonalize_exact(x.t()));
    EXPECT_LT(spectral_norm(product - product.t()), rounding) << precision;
  }
}

TEST(OrthogonalizePolynomial, TakesWhatTheReferenceTakes) {
  at::manual_seed(12);
  at::Tensor x = at::randn({2, 3, 8, 5});
  const at::Tensor y = ops::orthogonalize_polynomial(x);
  EXPECT_EQ(y.sizes(), x.sizes());
  EXPECT_TRUE(identical(ops::orthogonalize_polynomial(x * 0), x * 0));
  EXPECT_TRUE(close(ops::orthogonalize_polynomial(x * 1e30), y, {0, 2e-2}));
  EXPECT_TRUE(close(ops::orthogonalize_polynomial(x * 1e-30), y, {0, 2e-2}));
  x[0][0][0][0] = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(ops::orthogonalize_polynomial(x)[0][0].isnan().all().item<bool>());
  EXPECT_TRUE(ops::orthogonalize_polynomial(x)[1].isfinite().all().item<bool>());
  EXPECT_EQ(ops::orthogonalize_polynomial(at::empty({0, 4})).sizes(), at::IntArrayRef({0, 4}));
}

TEST(OrthogonalizePolynomial, IsTheSameForLongMatrices) {
  at::manual_seed(13);
  for (const int64_t columns : {30, 49, 200}) {
    const at::Tensor x =
        with_singular_values(at::logspace(0, -1.5, 24, 10, at::kDouble), 24, columns);
    // The same singular values and vectors, by way of a matrix that is not long.
    const auto [u, s, vt] = at::linalg_svd(x, /*full_matrices=*/false);
    const at::Tensor square = ops::orthogonalize_polynomial(u * s, at::kDouble).matmul(vt);
    EXPECT_TRUE(close(ops::orthogonalize_polynomial(x, at::kDouble), square, {0, 1e-9}));
    const at::Tensor y = ops::orthogonalize_polynomial(x.to(at::kFloat), at::kFloat);
    EXPECT_LT(spectral_norm(y - square), 1e-2) << columns;
  }
}

TEST(OrthogonalizeList, WithoutKernelsIsThePolynomialOfEach) {
  at::manual_seed(14);
  std::vector<at::Tensor> inputs;
  // Wide, tall, square, long, of shapes that are padded to others, and some of each.
  for (const auto& [rows, columns] : std::vector<Shape>{{24, 10},
                                                        {6, 30},
                                                        {24, 10},
                                                        {20, 10},
                                                        {10, 24},
                                                        {3, 24},
                                                        {1, 7},
                                                        {7, 1},
                                                        {9, 9},
                                                        {0, 4},
                                                        {200, 30},
                                                        {30, 180},
                                                        {30, 30}}) {
    inputs.push_back(at::randn({rows, columns}));
  }
  inputs[4].fill_(std::numeric_limits<float>::quiet_NaN());
  inputs[8].zero_();
  for (const auto precision : {at::kFloat, at::kBFloat16}) {
    std::vector<at::Tensor> list;
    for (const at::Tensor& x : inputs) list.push_back(x.clone());
    const ops::WithoutKernels without_kernels;
    ops::orthogonalize_(list, {.precision = precision});
    for (size_t i = 0; i < inputs.size(); ++i) {
      const at::Tensor expected = ops::orthogonalize_polynomial(inputs[i], precision);
      if (i == 4) {
        EXPECT_TRUE(list[i].isnan().all().item<bool>());
        continue;
      }
      const double rounding = precision == at::kFloat ? 1e-3 : 3e-2;
      EXPECT_TRUE(close(list[i], expected, {0, rounding})) << "matrix " << i;
      EXPECT_TRUE(identical(ops::orthogonalize(inputs[i], {.precision = precision}), expected));
    }
  }
}

TEST(OrthogonalizeList, OfFloat64IsTheReferenceOfEach) {
  at::manual_seed(15);
  std::vector<at::Tensor> list;
  for (const auto& [rows, columns] : std::vector<Shape>{{4, 9}, {9, 4}, {5, 5}, {9, 4}, {0, 3}}) {
    list.push_back(at::randn({rows, columns}, at::kDouble));
  }
  for (const at::Tensor& x : list) {
    const at::Tensor expected = ops::orthogonalize_reference(x);
    EXPECT_TRUE(identical(ops::orthogonalize(x), expected));
  }
  std::vector<at::Tensor> results;
  for (const at::Tensor& x : list) results.push_back(x.clone());
  ops::orthogonalize_(results);
  for (size_t i = 0; i < list.size(); ++i) {
    EXPECT_TRUE(close(results[i], ops::orthogonalize_reference(list[i]), {0, 1e-12}));
  }
}

}  // namespace
}  // namespace mnemosyne
