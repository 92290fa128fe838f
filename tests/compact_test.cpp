// The rule with a momentum of low rank, and how such a momentum is followed.

#include "mnemosyne/optim/compact.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "mnemosyne/core/error.h"
#include "mnemosyne/optim/low_rank.h"
#include "mnemosyne/optim/mnemosyne_rule.h"
#include "mnemosyne/optim/rules.h"
#include "mnemosyne/optim/weights.h"
#include "tests/testing.h"

namespace mnemosyne::optim {
namespace {

using testing::close;
using testing::identical;

LowRank zeros(int64_t rows, int64_t columns, int64_t rank) {
  return {at::zeros({rows, rank}, at::kDouble), at::zeros({columns, rank}, at::kDouble)};
}

/// Of this rank, with singular values that fall by halves.
at::Tensor matrix_of_rank(int64_t rank, int64_t rows, int64_t columns) {
  const auto basis = [](int64_t size, int64_t count) {
    return std::get<0>(at::linalg_qr(at::randn({size, count}, at::kDouble), "reduced"));
  };
  const at::Tensor values = at::pow(0.5, at::arange(rank, at::kDouble));
  return (basis(rows, rank) * values).matmul(basis(columns, rank).t());
}

TEST(LowRank, IsExactForAMatrixOfThatRank) {
  at::manual_seed(1);
  const at::Tensor x = matrix_of_rank(4, 20, 30);
  for (const double scale : {1e-18, 1.0, 1e18}) {
    const LowRank own = follow(scale * x, zeros(20, 30, 4));
    EXPECT_TRUE(close(product(own) / scale, x, {.rtol = 1e-10, .atol = 1e-12})) << scale;
    EXPECT_TRUE(close(own.left.t().matmul(own.left), at::eye(4, at::kDouble), {.atol = 1e-12}));
  }
}

TEST(LowRank, ComesToTheBestApproximationOfAMatrixThatStays) {
  at::manual_seed(2);
  const at::Tensor x = matrix_of_rank(12, 24, 18);
  LowRank own = follow(x, zeros(24, 18, 3));
  for (int step = 0; step < 20; ++step) own = follow(x, own);
  const auto [u, s, v] = at::linalg_svd(x);
  const double best = s.narrow(0, 3, s.size(0) - 3).norm().item<double>();
  EXPECT_NEAR((product(own) - x).norm().item<double>(), best, 1e-6 * best);
}

TEST(LowRank, LeavesZerosAndRanksThatAreNotThere) {
  LowRank own = follow(at::zeros({6, 9}, at::kDouble), zeros(6, 9, 2));
  EXPECT_TRUE(identical(product(own), at::zeros({6, 9}, at::kDouble)));
  at::manual_seed(3);
  const at::Tensor x = matrix_of_rank(1, 6, 9);
  for (int step = 0; step < 2; ++step) own = follow(x, own);
  EXPECT_TRUE(close(product(own), x, {.rtol = 1e-10, .atol = 1e-12}));
  // The first step of a head that starts at zero, then an embedding whose first rows never occur.
  own = follow(at::zeros({6, 9}, at::kDouble), zeros(6, 9, 2));
  at::Tensor sparse = at::zeros({6, 9}, at::kDouble);
  sparse.narrow(0, 3, 3).copy_(matrix_of_rank(2, 3, 9));
  for (int step = 0; step < 4; ++step) own = follow(sparse, own);
  EXPECT_TRUE(close(product(own), sparse, {.rtol = 1e-8, .atol = 1e-10}));
  const at::Tensor other = matrix_of_rank(2, 6, 9);  // a rank that had been lost comes back
  for (int step = 0; step < 4; ++step) own = follow(other, own);
  EXPECT_TRUE(close(product(own), other, {.rtol = 1e-10, .atol = 1e-12}));
}

std::vector<at::Tensor> params_of(at::ScalarType dtype = at::kDouble) {
  at::manual_seed(4);
  return {at::randn({40, 48}, dtype), at::randn({3, 5}, dtype), at::randn({7}, dtype)};
}

/// Gradients whose matrices stay in a space of four dimensions.
std::vector<at::Tensor> gradients(int64_t step) {
  at::manual_seed(5);
  const at::Tensor left = at::randn({40, 4}, at::kDouble), right = at::randn({4, 48}, at::kDouble);
  at::manual_seed(100 + step);
  return {left.matmul(at::randn({4, 4}, at::kDouble)).matmul(right), at::randn({3, 5}, at::kDouble),
          at::randn({7}, at::kDouble)};
}

constexpr char kFour[] = R"({"rank": 4})";

TEST(Compact, IsTheBaseRuleWhereTheRankIsEnough) {
  const auto compact = make_rule("mnemosyne-compact", kFour), base = make_rule("orthogonal");
  std::vector<at::Tensor> own = params_of(), other = params_of();
  State state = init_state(*compact, own), other_state = init_state(*base, other);
  EXPECT_EQ(state[0][3].numel(), 0) << "the matrix is factored";
  EXPECT_EQ(state[1][3].numel(), 15) << "the small one is not";
  for (int step = 0; step < 8; ++step) {
    compact->step_(gradients(step), state, own, {.num_steps = 10});
    base->step_(gradients(step), other_state, other, {.num_steps = 10});
  }
  for (size_t i = 0; i < own.size(); ++i) {
    EXPECT_TRUE(close(own[i], other[i], {.rtol = 1e-7, .atol = 1e-9})) << i;
  }
}

// Sums in closed form: the controller sees what it sees of a whole momentum.
TEST(Compact, SeesTheFeaturesOfTheDefaultRule) {
  const auto compact = make_rule("mnemosyne-compact", kFour), whole = make_rule("mnemosyne");
  const std::vector<at::Tensor> params = params_of();
  State state = init_state(*compact, params), other_state = init_state(*whole, params);
  for (int step = 0; step < 4; ++step) {
    Decisions own, other;
    state = compact->update(gradients(step), state, params, {.decisions = &own}).state;
    other_state = whole->update(gradients(step), other_state, params, {.decisions = &other}).state;
    EXPECT_TRUE(close(own.features, other.features, {.rtol = 1e-5, .atol = 1e-6})) << step;
  }
}

TEST(Compact, DecidesStepBlendAndDecayWithinItsBounds) {
  const auto rule = make_rule("mnemosyne-compact", R"({"rank": 4, "step_bound": 0.7})");
  const std::vector<at::Tensor> params = params_of();
  State state = init_state(*rule, params);
  for (int step = 0; step < 3; ++step) {
    state = rule->update(gradients(step), state, params, {}).state;
  }
  const auto with_row = [&](int64_t row, double weight) {
    at::Tensor controller = at::zeros_like(rule->weights()[0].second);
    controller[row][0] = weight;  // of the feature that is always one
    return rule->with_weights({{"controller", controller}})
        ->update(gradients(3), state, params, {})
        .updates;
  };
  const auto plain = with_row(0, 0.0);
  const auto larger = with_row(0, 100.0), blended = with_row(1, 1.0), shrunk = with_row(8, 0.5);
  for (size_t i = 0; i < params.size(); ++i) {
    EXPECT_TRUE(close(larger[i], std::exp(0.7) * plain[i], {.rtol = 1e-6})) << i;
    EXPECT_FALSE(close(shrunk[i], plain[i], {.rtol = 1e-3})) << i;
    EXPECT_EQ(close(blended[i], plain[i], {.rtol = 1e-3}), i == 2) << "a vector has no blend";
    // The decay is a share of the parameter in units of the step.
    const at::Tensor share = (shrunk[i] - plain[i]) / params[i];
    EXPECT_TRUE(close(share, at::full_like(share, share.mean().item<double>()), {.rtol = 1e-6}));
  }
}

TEST(Compact, IsDifferentiableInItsWeights) {
  const auto rule = make_rule("mnemosyne-compact", R"({"rank": 4, "step_bound": 0.5})");
  const std::vector<at::Tensor> params = params_of();
  State state = init_state(*rule, params);
  for (int step = 0; step < 2; ++step) {
    state = rule->update(gradients(step), state, params, {}).state;
  }
  at::manual_seed(6);
  const at::Tensor weights = 0.1 * at::randn(rule->weights()[0].second.sizes(), at::kDouble);
  std::vector<at::Tensor> towards;
  for (const at::Tensor& param : params) towards.push_back(at::randn_like(param));
  const auto loss = [&](const at::Tensor& controller) {
    const auto updates = rule->with_weights({{"controller", controller}})
                             ->update(gradients(2), state, params, {})
                             .updates;
    at::Tensor sum = at::zeros({}, at::kDouble);
    for (size_t i = 0; i < updates.size(); ++i) sum = sum + (updates[i] * towards[i]).sum();
    return sum;
  };
  at::Tensor leaf = weights.clone().requires_grad_(true);
  loss(leaf).backward();
  const at::Tensor direction = at::randn_like(weights);
  constexpr double kStep = 1e-4;
  const double numeric =
      ((loss(weights + kStep * direction) - loss(weights - kStep * direction)) / (2 * kStep))
          .item<double>();
  const double analytic = (leaf.grad() * direction).sum().item<double>();
  EXPECT_NEAR(analytic, numeric, 1e-5 * std::abs(numeric));
}

TEST(Compact, KeepsLessThanAByteOfAParameterOfALargeMatrix) {
  const auto rule = default_rule("mnemosyne-compact");
  const at::Tensor param = at::zeros({2048, 1024});
  int64_t bytes = 0;
  for (const at::Tensor& tensor : rule->init(param)) bytes += static_cast<int64_t>(tensor.nbytes());
  EXPECT_LT(static_cast<double>(bytes) / static_cast<double>(param.numel()), 0.1);
}

TEST(Compact, RefusesWhatCannotBe) {
  for (const char* bad : {R"({"rank": 0})", R"({"step_bound": -1.0})", R"({"step_bound": 9.0})"}) {
    EXPECT_THROW(make_rule("mnemosyne-compact", bad), InputError) << bad;
  }
}

}  // namespace
}  // namespace mnemosyne::optim
