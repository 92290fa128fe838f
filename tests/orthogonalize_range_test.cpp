// Whatever is finite comes out finite and within the documented bounds: every rank, aspect,
// condition and scale, on every instruction set that the machine has, and on AVX-512's tiles as any
// machine can run them.
#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "mnemosyne/kernels/isa.h"
#include "mnemosyne/kernels/orthogonalize.h"
#include "mnemosyne/ops/orthogonalize/orthogonalize.h"
#include "tests/isa_testing.h"
#include "tests/testing.h"

namespace mnemosyne::kernels::WIDE_TILES {
void orthogonalize(const OrthogonalizeSlice& slice);
int64_t orthogonalize_scratch(const OrthogonalizeParams& problem);
}  // namespace mnemosyne::kernels::WIDE_TILES

namespace mnemosyne {
namespace {

// Of ops/orthogonalize/orthogonalize.h in float32; the reference is within .85 and 1.15.
constexpr double kLowest = .84;
constexpr double kHighest = 1.16;
constexpr double kSmallestSingularValue = 5e-4;  // of sqrt(b)

struct Named {
  std::string name;
  at::Tensor x;  // double, the largest magnitude 1
};

at::Tensor normal(int64_t rows, int64_t columns) { return at::randn({rows, columns}, at::kDouble); }

at::Tensor of_rank(int64_t rank, int64_t rows, int64_t columns) {
  return normal(rows, rank).matmul(normal(rank, columns));
}

/// Singular values from 1 to 1 / condition.
at::Tensor of_condition(double condition, int64_t rank, int64_t rows, int64_t columns) {
  const auto u = std::get<0>(at::linalg_qr(normal(rows, rank)));
  const auto v = std::get<0>(at::linalg_qr(normal(columns, rank)));
  return (u * at::logspace(0, -std::log10(condition), rank, 10, at::kDouble)).matmul(v.t());
}

/// 1, 1 / 2, 1 / 3, ...: how often words are.
at::Tensor frequencies(int64_t count) { return 1 / at::arange(1, count + 1, at::kDouble); }

void add_ranks(std::vector<Named>& all) {
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{16, 5000},
                                      {2, 10'000},
                                      {8, 100'000},
                                      {33, 70},
                                      {48, 3000},
                                      {64, 64}}) {
    for (const int64_t rank : {int64_t{1}, int64_t{2}, rows / 2, rows}) {
      const std::string name =
          std::to_string(rows) + "x" + std::to_string(columns) + " rank " + std::to_string(rank);
      all.push_back({name, of_rank(rank, rows, columns)});
      all.push_back({name + " words", of_rank(rank, rows, columns) * frequencies(columns)});
    }
  }
  for (int seed = 0; seed < 6; ++seed) {
    all.push_back(
        {"words " + std::to_string(seed), normal(16, 1) * normal(1, 5000) * frequencies(5000)});
  }
}

void add_conditions(std::vector<Named>& all) {
  for (const auto& [rows, columns] :
       {std::pair<int64_t, int64_t>{4, 4000}, {10, 784}, {24, 24}, {40, 2500}}) {
    for (const double condition : {1e3, 1e4, 1e8, 1e30}) {
      all.push_back({std::to_string(rows) + "x" + std::to_string(columns) + " condition 1e" +
                         std::to_string(static_cast<int>(std::log10(condition))),
                     of_condition(condition, rows, rows, columns)});
    }
  }
}

void add_structures(std::vector<Named>& all) {
  for (const double huge : {1e3, 1e10, 1e30}) {
    at::Tensor x = normal(20, 300);
    x[7] *= huge;
    all.push_back({"one huge row", x});
    x = normal(20, 3000);
    x.select(1, 5) *= huge;
    all.push_back({"one huge column", x});
  }
  at::Tensor zeros = normal(24, 100);
  zeros.slice(0, 0, 9).zero_();
  zeros.slice(0, 12, 15) *= 1e-40;
  all.push_back({"zero and denormal rows", zeros});
  all.push_back({"rows of every size",
                 normal(30, 90) * at::logspace(0, -30, 30, 10, at::kDouble).unsqueeze(1)});
  for (const int64_t length : {600, 4000, 60'000}) {
    at::Tensor constant = at::full({3, length}, 2e-4, at::kDouble);
    constant.select(1, 0).copy_(at::tensor({1., .5, .75}, at::kDouble));
    constant[2][1] = .3;
    all.push_back({"small constants behind a large one", constant});
  }
  // Added up again and again, the same number is rounded the same way each time.
  for (const auto& [rows, columns] :
       {std::pair<int64_t, int64_t>{64, 1400}, {16, 600}, {64, 600}}) {
    for (int i = 0; i < 8; ++i) {
      at::Tensor constant = at::full({rows, columns}, std::pow(10.0, -.05 * (82 + i)), at::kDouble);
      const at::Tensor index = at::arange(rows, at::kDouble);
      constant.select(1, 0).copy_(1 / (1 + index.remainder(4)));
      constant.select(1, 1).copy_(((index + 1) * .6180339887).frac());
      all.push_back({std::to_string(rows) + " rows of a constant " + std::to_string(i), constant});
    }
  }
  all.push_back({"all equal", at::ones({12, 9000}, at::kDouble)});
  all.push_back({"counts", normal(16, 4000).mul(.6).trunc()});
}

const std::vector<Named>& matrices() {
  static const std::vector<Named> all = [] {
    at::manual_seed(1);
    std::vector<Named> list;
    add_ranks(list);
    add_conditions(list);
    add_structures(list);
    for (Named& named : list) named.x = named.x / named.x.abs().max();
    return list;
  }();
  return all;
}

/// Empty where all is well.
std::string fault(const at::Tensor& x, const at::Tensor& result) {
  if (!result.isfinite().all().item<bool>()) return "not finite";
  at::Tensor wide = x.to(at::kDouble), y = result.to(at::kDouble);
  wide = wide / wide.abs().max();
  if (wide.size(0) > wide.size(1)) std::tie(wide, y) = std::pair(wide.t(), y.t());
  const at::Tensor gram = wide.matmul(wide.t());
  const double bound = std::min(gram.norm().item<double>(), gram.abs().sum(1).max().item<double>());
  const double largest =
      at::linalg_eigvalsh(y.matmul(y.t())).max().clamp_min(0).sqrt().item<double>();
  if (largest > kHighest) return "largest singular value " + std::to_string(largest);
  const auto [u, s, vh] = at::linalg_svd(wide, /*full_matrices=*/false);
  const at::Tensor gains =
      (u.t().matmul(y) * vh).sum(1).masked_select(s >= kSmallestSingularValue * std::sqrt(bound));
  const double lowest = gains.min().item<double>();
  return lowest < kLowest ? "a singular value of " + std::to_string(lowest) : "";
}

/// By the kernel of AVX-512's tiles.
at::Tensor by_wide_tiles(const at::Tensor& x) {
  // Those of ops/orthogonalize/cpu.cpp, where no test can reach them.
  constexpr float weights[] = {2.22659903e-03F, 4.24325804e-02F, 9.86857640e-01F};
  constexpr float poles[] = {1.12812575e-06F, 5.00000000e-04F, 2.21606501e-01F};
  at::Tensor y = x.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true).contiguous();
  const kernels::OrthogonalizeMatrix matrix{y.data_ptr<float>(), y.size(0), y.size(1)};
  const kernels::OrthogonalizeParams problem{&matrix, 1, weights, poles, 3};
  const at::Tensor workspace = at::full({kernels::WIDE_TILES::orthogonalize_scratch(problem)},
                                        std::numeric_limits<float>::quiet_NaN());
  kernels::WIDE_TILES::orthogonalize({problem, 0, 1, workspace.data_ptr<float>()});
  return y;
}

at::Tensor in_place(const at::Tensor& x) {
  at::Tensor y = x.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true).contiguous();
  ops::orthogonalize_(at::TensorList(y));
  return y;
}

class OrthogonalizeRange : public testing::EveryIsa {};

TEST_P(OrthogonalizeRange, EveryFiniteMatrixIsWithinTheBounds) {
  for (const auto& [name, x] : matrices()) {
    const at::Tensor single = x.to(at::kFloat);
    EXPECT_EQ(fault(single, in_place(single)), "") << name;
    EXPECT_EQ(fault(single, in_place(single.t()).t()), "") << name << ", transposed";
  }
}

TEST_P(OrthogonalizeRange, WhateverTheScale) {
  for (const auto& [name, x] : matrices()) {
    if (x.size(1) > 5000) continue;
    const at::Tensor expected = in_place(x);
    for (const int exponent : {-100, 99}) {
      // A power of two: rows that do not become denormal give the same to the last bit.
      const at::Tensor scaled = (x * std::ldexp(1.0, exponent)).to(at::kFloat);
      EXPECT_EQ(fault(scaled, in_place(scaled)), "") << name << " times 2^" << exponent;
    }
  }
}

TEST_P(OrthogonalizeRange, BFloat16) {
  for (const auto& [name, x] : matrices()) {
    const at::Tensor half = x.to(at::kBFloat16);
    EXPECT_EQ(fault(half, in_place(half)), "") << name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, OrthogonalizeRange, ::testing::ValuesIn(kernels::available_isas()),
                         [](const auto& info) { return kernels::isa_name(info.param); });

TEST(OrthogonalizeRange, TilesOfAvx512) {
  for (const auto& [name, x] : matrices()) {
    const at::Tensor single = x.to(at::kFloat);
    EXPECT_EQ(fault(single, by_wide_tiles(single)), "") << name;
  }
}

TEST(OrthogonalizeRange, TheReferenceIsWithinItsOwn) {
  for (const auto& [name, x] : matrices()) {
    for (const double scale : {1.0, 1e-300, 1e300}) {
      const at::Tensor y = ops::orthogonalize_reference(x * scale);
      EXPECT_EQ(fault(x * scale, y), "") << name << " times " << scale;
    }
  }
}

TEST(OrthogonalizeRange, PolynomialsStayFiniteAndBounded) {
  for (const auto& [name, x] : matrices()) {
    if (x.size(1) > 5000) continue;
    for (const auto precision : {at::kFloat, at::kBFloat16}) {
      const at::Tensor y = ops::orthogonalize_polynomial(x.to(at::kFloat), precision);
      ASSERT_TRUE(y.isfinite().all().item<bool>()) << name;
      const double largest = at::linalg_svdvals(y.to(at::kDouble)).max().item<double>();
      EXPECT_LT(largest, 1.2) << name << " in " << precision;
    }
  }
}

TEST(OrthogonalizeRange, LongSumsAreAsPreciseAsShortOnes) {
  // Summed term by term the Gram matrix of 50,000 terms would be off by several times the shift.
  at::manual_seed(2);
  const at::Tensor x =
      (normal(24, 3).matmul(normal(3, 50'000)) * frequencies(50'000)).to(at::kFloat);
  const at::Tensor error =
      in_place(x).to(at::kDouble) - ops::orthogonalize_reference(x.to(at::kDouble));
  EXPECT_LT(at::linalg_svdvals(error).max().item<double>(), .02);
}

}  // namespace
}  // namespace mnemosyne
