#include <map>
#include <numbers>

#include "mnemosyne/nn/position/fourier_position.h"
#include "mnemosyne/ops/feature_map.h"
#include "mnemosyne/ops/masked_attention.h"
#include "position_testing.h"
#include "testing.h"

namespace mnemosyne::nn {
namespace {

using testing::close;
using testing::line;
using testing::make_position;
using testing::offsets_of;
using testing::product;
using testing::randomise;
using Options = FourierPositionOptions;

constexpr double kPi = std::numbers::pi;

/// The z-score of a one-head estimate of `exact` at offset z [D], whose components are independent
/// strata of equally many independent draws.
double z_score(const ops::SpectralSum& sum, int64_t terms, const at::Tensor& z, double exact) {
  const at::Tensor angle = at::matmul(sum.frequencies[0].to(at::kDouble), z) * 2.0 * kPi;
  at::Tensor waves = sum.cosine[0] * angle.cos();
  if (sum.sine.defined()) waves = waves + sum.sine[0] * angle.sin();
  const at::Tensor strata = waves.view({terms, -1});
  const double variance =
      (strata.var(1) * static_cast<double>(strata.size(1))).sum().item<double>();
  // At offset 0 an estimate without importance weights has no variance, only rounding.
  return (waves.sum().item<double>() - exact) / std::sqrt(variance + 1e-18);
}

const std::map<std::string, Options>& drawn_kinds() {
  static const std::map<std::string, Options> kinds = {
      {"mixture1", {.position_dim = 1}},
      {"mixture3", {.position_dim = 3, .phase = true}},
      {"mixture3 shells", {.position_dim = 3, .rotation_invariant = true}},
      {"gaussian2", {.position_dim = 2, .kind = "shift_invariant"}},
      {"laplace2", {.position_dim = 2, .kind = "shift_invariant", .kernel = "laplace"}},
      {"matern2",
       {.position_dim = 2, .kind = "shift_invariant", .kernel = "matern", .matern_nu = 1.5}},
      {"matern1",
       {.position_dim = 1, .kind = "shift_invariant", .kernel = "matern", .matern_nu = 2.5}},
      {"dirichlet1", {.position_dim = 1, .kind = "local", .window = "dirichlet"}},
      {"tent2", {.position_dim = 2, .kind = "local", .window = "tent"}},
      {"box1", {.position_dim = 1, .kind = "local", .window = "box"}},
      {"box3", {.position_dim = 3, .kind = "local", .window = "box"}},
      {"disc", {.position_dim = 2, .kind = "local", .window = "l2_ball"}},
      {"ball", {.position_dim = 3, .kind = "local", .window = "l2_ball"}},
      {"l1 ball", {.position_dim = 2, .kind = "local", .window = "l1_ball"}},
  };
  return kinds;
}

at::Tensor some_offset(const Options& options, double scale) {
  if (options.window == "dirichlet" && options.kind == "local") {
    return at::tensor({std::round(4.0 * scale)}, at::kDouble);
  }
  return at::tensor({1.7, -0.9, 0.6}, at::kDouble).narrow(0, 0, options.position_dim) * scale;
}

TEST(FourierPositionEstimates, DrawnEstimatesAreUnbiasedForEveryKind) {
  for (const auto& [name, base] : drawn_kinds()) {
    Options options = base;
    options.num_components = 2;
    options.num_frequencies = options.window == "tent" ? 40000 : 400000;
    options.min_width = 1.0;
    options.max_width = 4.0;
    options.initial_amplitude = 1.4;
    options.draws = "independent";
    options.seed = 11;
    const FourierPosition position = make_position(options);
    randomise(*position, 5, 0.1);
    for (const double scale : {0.0, 0.5, 1.0, 2.5}) {
      const at::Tensor z = some_offset(options, scale);
      const double exact = position->mask(z).item<double>();
      EXPECT_LT(std::abs(z_score(position->spectrum().sum(), 2, z, exact)), 4.0)
          << name << " at " << scale;
    }
  }
}

TEST(FourierPositionEstimates, SpreadDrawsAreUnbiasedAndSpreadHelps) {
  constexpr int kSeeds = 300;
  const auto errors = [](Options options, const std::string& draws) {
    options.num_components = 2;
    options.num_frequencies = 8;
    options.max_width = 4.0;
    options.initial_amplitude = 1.0;
    options.draws = draws;
    std::vector<double> result;
    for (int seed = 0; seed < kSeeds; ++seed) {
      options.seed = static_cast<uint64_t>(seed) * 7919 + 1;
      const FourierPosition position = make_position(options);
      const at::NoGradGuard no_grad;
      const auto centre = position->named_parameters().find("spectrum.centre");
      if (centre) centre->fill_(0.05);
      const at::Tensor z = some_offset(options, 1.0);
      result.push_back(
          (ops::fourier_sum(position->spectrum().sum(), z) - position->mask(z)).item<double>());
    }
    return at::tensor(result, at::kDouble);
  };
  const auto score = [](const at::Tensor& e) {
    return std::abs((e.mean() / e.std() * std::sqrt(static_cast<double>(kSeeds))).item<double>());
  };
  for (const char* name : {"mixture1", "mixture3 shells", "gaussian2", "laplace2", "matern2",
                           "tent2", "box1", "disc"}) {
    const at::Tensor spread = errors(drawn_kinds().at(name), "quasi_random");
    EXPECT_LT(score(spread), 4.0) << name;
  }
  for (const char* name : {"gaussian2", "matern2"}) {
    EXPECT_LT(score(errors(drawn_kinds().at(name), "orthogonal")), 4.0) << name;
  }
  const double even = errors(drawn_kinds().at("mixture1"), "quasi_random").std().item<double>();
  const double plain = errors(drawn_kinds().at("mixture1"), "independent").std().item<double>();
  EXPECT_LT(even, 0.6 * plain);
}

TEST(FourierPositionEstimates, VarianceFollowsTheFormula) {
  // Var = (A^2 (1 + k(2z)) / 2 - f^2) / r for p = |g| / |g|_1.
  constexpr int64_t kCount = 400000;
  const Options gaussian{.kind = "shift_invariant",
                         .num_frequencies = kCount,
                         .num_components = 1,
                         .max_width = 3.0,
                         .initial_amplitude = 0.8,
                         .draws = "independent"};
  const ops::SpectralSum sum = make_position(gaussian)->spectrum().sum();
  for (const double z : {0.5, 2.0, 6.0}) {
    const auto k = [](double x) { return std::exp(-x * x / 18.0); };
    const double f = 0.8 * k(z), expected = 0.32 * (1.0 + k(2.0 * z)) - f * f;
    const at::Tensor terms =
        (sum.cosine[0] * kCount) * (2.0 * kPi * z * sum.frequencies[0].squeeze(-1)).cos();
    EXPECT_NEAR(terms.var().item<double>(), expected, 0.02 * expected) << z;
  }
  // (2 V + 1) / 2 + max(0, 2 V + 1 - 2 n) / 2 - f^2 for the Dirichlet window of V = 8.
  const Options window{.kind = "local",
                       .num_frequencies = kCount,
                       .num_components = 1,
                       .max_width = 8.0,
                       .initial_amplitude = 1.0,
                       .draws = "independent"};
  const ops::SpectralSum lattice = make_position(window)->spectrum().sum();
  for (const int64_t n : {0, 5, 10}) {
    const double expected =
        8.5 + 0.5 * static_cast<double>(std::max<int64_t>(0, 17 - 2 * n)) - (n <= 8 ? 1.0 : 0.0);
    const at::Tensor angle =
        2.0 * kPi * static_cast<double>(n) * lattice.frequencies[0].squeeze(-1);
    const at::Tensor terms = (lattice.cosine[0] * kCount) * angle.cos();
    EXPECT_NEAR(terms.var().item<double>(), expected, 0.03 * expected) << n;
  }
}

TEST(FourierPositionEstimates, UniformErrorStaysBelowItsBound) {
  constexpr int64_t kWaves = 256, kLags = 128;
  constexpr int kSeeds = 200;
  constexpr double kDelta = 0.05, kAmplitude = 1.3;
  const double bound = kAmplitude * std::sqrt(2.0 * std::log(2.0 * kLags / kDelta) / kWaves);
  int failures = 0;
  double largest = 0.0;
  for (int seed = 0; seed < kSeeds; ++seed) {
    const FourierPosition position = make_position({.kind = "shift_invariant",
                                                    .num_frequencies = kWaves,
                                                    .num_components = 1,
                                                    .max_width = 5.0,
                                                    .initial_amplitude = kAmplitude,
                                                    .draws = "independent",
                                                    .seed = static_cast<uint64_t>(seed)});
    const at::Tensor lags = line(kLags);
    const double error = (ops::fourier_sum(position->spectrum().sum(), lags) - position->mask(lags))
                             .abs()
                             .max()
                             .item<double>();
    failures += error > bound ? 1 : 0;
    largest = std::max(largest, error);
  }
  EXPECT_LE(failures, kDelta * kSeeds);
  EXPECT_GT(largest, 0.2 * bound);
}

TEST(FourierPositionEstimates, ErrorOfAttentionRowsIsBoundedByTheErrorOfTheMask) {
  at::manual_seed(2);
  const FourierPosition position = make_position(
      {.num_heads = 2, .num_frequencies = 32, .max_width = 12.0, .initial_amplitude = 2.0});
  const at::Tensor x = line(48), exact = position->mask(offsets_of(x));
  const at::Tensor estimate = product(position->features(x));
  const double eps = (estimate - exact).abs().max().item<double>();
  const at::Tensor q = at::randn({1, 2, 48, 8}, at::kDouble), k = at::randn_like(q);
  const at::Tensor identity = at::eye(48, at::kDouble).expand({1, 2, 48, 48});
  const at::Tensor difference = ops::softmax_attention_with_bias(q, k, identity, exact, false) -
                                ops::softmax_attention_with_bias(q, k, identity, estimate, false);
  EXPECT_GT(eps, 1e-3);
  EXPECT_LE(difference.abs().sum(-1).max().item<double>(), std::exp(2.0 * eps) - 1.0);
}

TEST(FourierPositionEstimates, PositiveFeaturesAreUnbiasedOnlyForTheEstimatedMask) {
  // Over random frequencies exp(f^) has a Jensen bias, visible with r = 4.
  const Options four{.kind = "shift_invariant",
                     .num_frequencies = 200000,
                     .num_components = 1,
                     .max_width = 2.0,
                     .initial_amplitude = 0.8,
                     .draws = "independent"};
  const FourierPosition many = make_position(four);
  const at::Tensor z = at::tensor({1.5}, at::kDouble);
  const ops::SpectralSum sum = many->spectrum().sum();
  const at::Tensor terms = 0.8 * (2.0 * kPi * 1.5 * sum.frequencies[0].squeeze(-1)).cos();
  const at::Tensor estimates = terms.view({-1, 4}).mean(1).exp();
  const double target = many->mask(z).exp().item<double>();
  const double error = estimates.std().item<double>() / std::sqrt(50000.0);
  EXPECT_GT((estimates.mean().item<double>() - target) / error, 4.0);
  // Given the frequencies, exp(q.k + f^) is met.
  Options fixed = four;
  fixed.num_frequencies = 4;
  const FourierPosition position = make_position(fixed);
  const auto features = position->features(at::tensor({0.0, 1.5}, at::kDouble).unsqueeze(-1));
  at::manual_seed(7);
  const at::Tensor q = at::randn({4}, at::kDouble) * 0.3, k = at::randn({4}, at::kDouble) * 0.3;
  const at::Tensor left = at::cat({q, features.query[0][1]}),
                   right = at::cat({k, features.key[0][0]});
  const at::Tensor omega = at::randn({400000, 12}, at::kDouble);
  const auto map = [&](const at::Tensor& x) {
    return ops::feature_map(ops::FeatureMapKind::kFavorPlus, x, omega);
  };
  const at::Tensor products = map(left) * map(right) * 400000.0;
  const double exact = at::dot(left, right).exp().item<double>();
  const double spread = products.std().item<double>() / std::sqrt(400000.0);
  EXPECT_LT(std::abs(products.mean().item<double>() - exact) / spread, 4.0);
}

TEST(FourierPositionEstimates, PositiveFeaturesOfAConcatenationFactorise) {
  at::manual_seed(3);
  const FourierPosition position =
      make_position({.num_heads = 2, .num_frequencies = 8, .initial_amplitude = 0.7});
  const ops::PositionFeatures features = position->features(line(5));
  const at::Tensor q = at::randn({1, 2, 5, 6}, at::kDouble), k = at::randn_like(q);
  const auto [left, right] = position->join(q, k, features);
  const at::Tensor omega = at::randn({10, 22}, at::kDouble);
  const auto map = [](const at::Tensor& x, const at::Tensor& w) {
    return ops::feature_map(ops::FeatureMapKind::kFavorPlus, x, w);
  };
  const at::Tensor content = map(q * std::pow(6.0, -0.25), omega.narrow(1, 0, 6));
  const at::Tensor place = map(features.query, omega.narrow(1, 6, 16));
  EXPECT_TRUE(close(map(left, omega), content * place * std::sqrt(10.0), {1e-12, 1e-14}));
  EXPECT_TRUE(close(at::matmul(left, right.mT()),
                    at::matmul(q, k.mT()) / std::sqrt(6.0) + product(features), {1e-12, 1e-12}));
}

}  // namespace
}  // namespace mnemosyne::nn
