#include "mnemosyne/ops/orthogonalize/orthogonalize.h"

#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "mnemosyne/kernels/isa.h"
#include "mnemosyne/kernels/orthogonalize.h"
#include "mnemosyne/ops/orthogonalize/benchmark.h"
#include "tests/isa_testing.h"
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

at::Tensor fast(const at::Tensor& x) {
  at::Tensor y = x.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true).contiguous();
  ops::orthogonalize_(at::TensorList(y));
  return y;
}

/// Smallest and largest singular value.
std::pair<double, double> singular_range(const at::Tensor& y) {
  const at::Tensor s = at::linalg_svdvals(y.to(at::kDouble));
  return {s.min().item<double>(), s.max().item<double>()};
}

double spectral_norm(const at::Tensor& x) {
  return at::linalg_svdvals(x.to(at::kDouble)).max().item<double>();
}

/// Five quintic Newton-Schulz steps, the way of Muon (Jordan et al. 2024), in double.
at::Tensor newton_schulz(const at::Tensor& x) {
  at::Tensor y = x / x.norm();
  for (int step = 0; step < 5; ++step) {
    const at::Tensor gram = y.matmul(y.t());
    y = 3.4445 * y + (-4.7750 * gram + 2.0315 * gram.matmul(gram)).matmul(y);
  }
  return y;
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

TEST(Orthogonalize, ExactKeepsZeroSingularValues) {
  at::manual_seed(1);
  const at::Tensor x = at::randn({6, 2}, at::kDouble).matmul(at::randn({2, 9}, at::kDouble));
  const at::Tensor s = at::linalg_svdvals(ops::orthogonalize_exact(x));
  EXPECT_TRUE(close(s, at::tensor({1., 1., 0., 0., 0., 0.}, at::kDouble), {0, 1e-12}));
  EXPECT_TRUE(identical(ops::orthogonalize_exact(at::zeros({3, 4})), at::zeros({3, 4})));
}

TEST(Orthogonalize, ReferencePutsSingularValuesNearOneAndKeepsSingularVectors) {
  at::manual_seed(2);
  const at::Tensor x = with_singular_values(at::logspace(0, -3, 48, 10, at::kDouble), 48, 80);
  const at::Tensor y = ops::orthogonalize_reference(x);
  // In the basis of the singular vectors y is diagonal and positive exactly when this is symmetric
  // positive.
  const at::Tensor product = y.matmul(ops::orthogonalize_exact(x).t());
  EXPECT_TRUE(close(product, product.t(), {0, 1e-9}));
  const at::Tensor values = at::linalg_eigvalsh(product);
  EXPECT_GT(values.min().item<double>(), .85);
  EXPECT_LT(values.max().item<double>(), 1.15);
}

TEST(Orthogonalize, ReferenceTakesLeadingDimensionsStridesAndDtypes) {
  at::manual_seed(3);
  const at::Tensor x = at::randn({2, 3, 8, 5}, at::kDouble);
  const at::Tensor y = ops::orthogonalize_reference(x);
  EXPECT_TRUE(close(y[1][2], ops::orthogonalize_reference(x[1][2]), {0, 1e-14}));
  EXPECT_TRUE(close(ops::orthogonalize_reference(x.mT()), y.mT(), {0, 1e-14}));
  EXPECT_TRUE(identical(
      ops::orthogonalize_reference(x.to(at::kBFloat16)),
      ops::orthogonalize_reference(x.to(at::kBFloat16).to(at::kDouble)).to(at::kBFloat16)));
}

TEST(Orthogonalize, IsNearerToOneThanFiveNewtonSchulzStepsOnSpreadSpectra) {
  at::manual_seed(4);
  for (const double smallest : {.1, 1e-2, 1e-3}) {
    const at::Tensor s = at::logspace(0, std::log10(smallest), 40, 10, at::kDouble);
    const at::Tensor x = with_singular_values(s, 40, 100);
    const auto [low, high] = singular_range(fast(x));
    const auto [muon_low, muon_high] = singular_range(newton_schulz(x));
    EXPECT_LT(std::max(1 / low, high), std::max(1 / muon_low, muon_high)) << smallest;
  }
}

using Shape = std::pair<int64_t, int64_t>;

/// Every instruction set and shape: below a vector, a panel and a block, at them, beyond them, wide
/// and tall.
class OrthogonalizeKernel : public ::testing::TestWithParam<std::tuple<kernels::Isa, Shape>> {
 protected:
  void SetUp() override {
    std::tie(rows_, columns_) = std::get<1>(GetParam());
    at::manual_seed(rows_ * 10'000 + columns_);
    threads_ = at::get_num_threads();
    at::set_num_threads(1);  // LAPACK's threads take longer to meet than to compute
  }
  void TearDown() override { at::set_num_threads(threads_); }

  at::Tensor random(double smallest) const {
    const int64_t rank = std::min(rows_, columns_);
    const at::Tensor s = at::logspace(0, std::log10(smallest), rank, 10, at::kDouble);
    return with_singular_values(s, rows_, columns_).to(at::kFloat);
  }

  int64_t rows_ = 0;
  int64_t columns_ = 0;

 private:
  testing::UsedIsa isa_{std::get<0>(GetParam())};
  int threads_ = 1;
};

// The Gram matrix is rounded at 6e-8 of its largest eigenvalue, so the error grows with the square
// of the condition number: 1e-5 at 10, a few hundredths at 1e3, where the singular values are still
// in range.
TEST_P(OrthogonalizeKernel, EqualsTheReference) {
  const at::Tensor x = random(.1);
  EXPECT_LT(spectral_norm(fast(x) - ops::orthogonalize_reference(x.to(at::kDouble))), 3e-5);
}

TEST_P(OrthogonalizeKernel, KeepsSmallSingularValuesInRange) {
  const at::Tensor x = random(1e-3);
  const auto [low, high] = singular_range(fast(x));
  EXPECT_GT(low, .8);
  EXPECT_LT(high, 1.2);
  EXPECT_LT(spectral_norm(fast(x) - ops::orthogonalize_reference(x.to(at::kDouble))), .1);
}

TEST_P(OrthogonalizeKernel, TallIsTheTransposeOfWide) {
  if (rows_ == columns_) return;  // read as wide both times, with two different Gram matrices
  const at::Tensor x = random(.1);
  EXPECT_TRUE(close(fast(x.t()), fast(x).t(), {0, 1e-6}));
}

TEST_P(OrthogonalizeKernel, ReadsNothingThatItDidNotWriteAndStaysInItsWorkspace) {
  const float weights[] = {.002F, .04F, 1};
  const float poles[] = {1e-6F, 5e-4F, .2F};
  const at::Tensor x = random(.1);
  std::vector<at::Tensor> results;
  const auto problem = [&](const kernels::OrthogonalizeMatrix& matrix) {
    return kernels::OrthogonalizeParams{&matrix, 1, weights, poles, 3};
  };
  const int64_t size = kernels::orthogonalize_scratch(problem({nullptr, rows_, columns_}));
  for (const float content : {0.0F, std::numeric_limits<float>::quiet_NaN()}) {
    at::Tensor workspace = at::full({size + 16}, content);
    workspace.slice(0, size, size + 16).fill_(7);
    results.push_back(x.clone());
    const kernels::OrthogonalizeMatrix matrix{results.back().data_ptr<float>(), rows_, columns_};
    kernels::orthogonalize({problem(matrix), 0, 1, workspace.data_ptr<float>()});
    EXPECT_TRUE(workspace.slice(0, size, size + 16).eq(7).all().item<bool>());
  }
  EXPECT_TRUE(results[0].isfinite().all().item<bool>());
  EXPECT_TRUE(identical(results[0], results[1]));
}

INSTANTIATE_TEST_SUITE_P(
    All, OrthogonalizeKernel,
    ::testing::Combine(::testing::ValuesIn(kernels::available_isas()),
                       ::testing::Values(Shape{1, 7}, Shape{2, 2}, Shape{8, 64}, Shape{10, 32},
                                         Shape{16, 16}, Shape{17, 33}, Shape{32, 64}, Shape{50, 41},
                                         Shape{64, 10}, Shape{100, 190}, Shape{192, 192},
                                         Shape{300, 270})),
    [](const auto& info) {
      const Shape shape = std::get<1>(info.param);
      return kernels::isa_name(std::get<0>(info.param)) + "_" + std::to_string(shape.first) + "x" +
             std::to_string(shape.second);
    });

TEST(Orthogonalize, TheScaleDoesNotMatter) {
  at::manual_seed(5);
  const at::Tensor x = at::randn({24, 40});
  const at::Tensor y = fast(x);
  for (const int exponent : {-100, -20, 1, 100}) {
    EXPECT_TRUE(identical(fast(x * std::ldexp(1.0, exponent)), y)) << exponent;
  }
  EXPECT_TRUE(close(fast(x * 1e-30), y, {1e-4, 1e-5}));
  EXPECT_TRUE(close(fast(x * 1e30), y, {1e-4, 1e-5}));
  EXPECT_TRUE(
      fast(at::full({5, 6}, std::numeric_limits<float>::max())).isfinite().all().item<bool>());
  EXPECT_TRUE(close(fast(at::full({1, 4}, std::numeric_limits<float>::denorm_min())),
                    at::full({1, 4}, .5)));
}

TEST(Orthogonalize, AVectorIsNormalised) {
  at::manual_seed(6);
  const at::Tensor x = at::randn({1, 1000});
  EXPECT_TRUE(close(fast(x), x / x.norm(), {1e-6, 0}));
  EXPECT_TRUE(close(fast(x.t()), (x / x.norm()).t(), {1e-6, 0}));
  EXPECT_TRUE(close(ops::orthogonalize_reference(x), x / x.norm(), {1e-6, 0}));
}

TEST(Orthogonalize, NullDirectionsStayNull) {
  at::manual_seed(7);
  EXPECT_TRUE(identical(fast(at::zeros({20, 30})), at::zeros({20, 30})));
  for (const int64_t columns : {40, 90}) {
    const at::Tensor x = at::randn({60, 5}).matmul(at::randn({5, columns}));
    const at::Tensor s = at::linalg_svdvals(fast(x).to(at::kDouble));
    EXPECT_GT(s[4].item<double>(), .8);
    EXPECT_LT(s[0].item<double>(), 1.2);
    EXPECT_LT(s[5].item<double>(), 1e-3);
  }
  at::Tensor sparse = at::zeros({30, 50});
  sparse[3][4] = -2;
  const at::Tensor y = fast(sparse);
  EXPECT_NEAR(y[3][4].item<double>(), -1, .15);
  EXPECT_EQ(y.count_nonzero().item<int64_t>(), 1);
}

TEST(Orthogonalize, WhatIsNotFiniteBecomesNaNAndStaysAlone) {
  at::manual_seed(8);
  at::Tensor good = at::randn({9, 20});
  at::Tensor bad = at::randn({9, 20});
  bad[2][3] = std::numeric_limits<float>::infinity();
  const at::Tensor expected = fast(good);
  EXPECT_TRUE(ops::orthogonalize_reference(bad).isnan().all().item<bool>());
  ops::orthogonalize_({bad, good});
  EXPECT_TRUE(bad.isnan().all().item<bool>());
  EXPECT_TRUE(identical(good, expected));
}

TEST(Orthogonalize, EmptyMatricesAreFine) {
  at::Tensor a = at::empty({0, 5});
  at::Tensor b = at::empty({5, 0});
  ops::orthogonalize_({a, b});
  ops::orthogonalize_(at::TensorList());
  EXPECT_EQ(ops::orthogonalize_reference(a).sizes(), a.sizes());
  EXPECT_EQ(ops::orthogonalize_exact(b).sizes(), b.sizes());
}

TEST(Orthogonalize, AMatrixDependsNeitherOnTheListNorOnThreads) {
  at::manual_seed(9);
  std::vector<at::Tensor> inputs;
  for (int i = 0; i < 30; ++i) inputs.push_back(at::randn({8 + 7 * (i % 5), 64 + i}));
  const int threads = at::get_num_threads();
  for (const int count : {1, 2, 4}) {
    at::set_num_threads(count);
    std::vector<at::Tensor> together;
    for (const at::Tensor& x : inputs) together.push_back(x.clone());
    ops::orthogonalize_(together);
    for (size_t i = 0; i < inputs.size(); ++i) {
      EXPECT_TRUE(identical(together[i], fast(inputs[i]))) << count << " threads, matrix " << i;
    }
  }
  at::set_num_threads(threads);
}

TEST(Orthogonalize, WritesOnlyItsMatrices) {
  at::manual_seed(10);
  at::Tensor buffer = at::randn({3, 17 * 5});
  const at::Tensor before = buffer.clone();
  ops::orthogonalize_(at::TensorList(buffer[1].view({17, 5})));
  EXPECT_TRUE(identical(buffer[0], before[0]));
  EXPECT_TRUE(identical(buffer[1].view({17, 5}), fast(before[1].view({17, 5}))));
  EXPECT_TRUE(identical(buffer[2], before[2]));
}

TEST(Orthogonalize, RefusesWhatItCannotDoInPlace) {
  EXPECT_THROW(ops::orthogonalize_({at::randn({2, 3, 4})}), c10::Error);
  EXPECT_THROW(ops::orthogonalize_({at::randn({3, 4}).t()}), c10::Error);
  EXPECT_THROW(ops::orthogonalize_({at::randn({3, 4}, at::kHalf)}), c10::Error);
  EXPECT_THROW(ops::orthogonalize_({at::randn({3, 4}), at::randn({3, 4}, at::kDouble)}),
               c10::Error);
  EXPECT_THROW(ops::orthogonalize_reference(at::randn({3})), c10::Error);
  EXPECT_THROW(ops::orthogonalize_polynomial(at::randn({3})), c10::Error);
  EXPECT_THROW(ops::orthogonalize_exact(at::ones({3, 4}, at::kLong)), c10::Error);
}

TEST(OrthogonalizeOp, IsRegistered) {
  at::manual_seed(14);
  const auto op = c10::Dispatcher::singleton()
                      .findSchemaOrThrow("mnemosyne::orthogonalize", "")
                      .typed<at::Tensor(const at::Tensor&)>();
  const at::Tensor x = at::randn({3, 12, 7});
  const at::Tensor before = x.clone();
  const at::Tensor y = op.call(x);
  EXPECT_TRUE(identical(x, before));
  EXPECT_TRUE(identical(y[1], fast(x[1])));
  EXPECT_TRUE(identical(op.call(x.mT())[2], fast(x[2].t())));
  EXPECT_EQ(op.call(x.to(at::kHalf)).scalar_type(), at::kHalf);
  EXPECT_EQ(op.call(at::empty({2, 0, 3})).sizes(), at::IntArrayRef({2, 0, 3}));
  EXPECT_EQ(op.call(at::empty({4, 5}, at::device(at::kMeta))).sizes(), at::IntArrayRef({4, 5}));
  EXPECT_THROW(op.call(at::randn({3})), c10::Error);
}

TEST(OrthogonalizeBenchmark, TimesEveryWay) {
  const auto times = ops::benchmark_orthogonalize({{8, 16}, {16, 8}}, 1);
  EXPECT_GT(times.fused, 0);
  EXPECT_GT(times.products, 0);
  EXPECT_GT(times.muon, 0);
  EXPECT_LT(times.fused + times.products + times.muon, 60);
  EXPECT_EQ(ops::vit_tiny_matrices().size(), 51u);
}

}  // namespace
}  // namespace mnemosyne
