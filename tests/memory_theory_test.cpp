#include <cmath>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/theory/attention_error.h"
#include "mnemosyne/nn/theory/exact_capacity.h"
#include "mnemosyne/nn/theory/forgetting.h"
#include "mnemosyne/nn/theory/hopfield.h"
#include "mnemosyne/nn/theory/pattern_recovery.h"
#include "testing.h"

namespace mnemosyne::nn {
namespace {

using testing::close;

/// E(s) = -sum_mu c_mu exp(beta <xi_mu, s>) of states [B, N].
at::Tensor energy(const at::Tensor& patterns, const at::Tensor& weights, double beta,
                  const at::Tensor& states) {
  return -at::matmul((beta * at::matmul(states, patterns.t())).exp(), weights);
}

TEST(Hopfield, ASweepIsOneReadOfSoftmaxAttention) {
  constexpr int64_t kSpins = 12;
  constexpr double kBeta = 0.4;
  const at::Tensor patterns = random_patterns(20, kSpins, 1);
  const at::Tensor weights = at::pow(0.9, at::arange(20, at::kDouble));
  const at::Tensor states = random_patterns(30, kSpins, 2);
  const at::Tensor swept = sweep(patterns, weights.log(), kBeta, states);
  int64_t changed = 0;
  for (int64_t b = 0; b < states.size(0); ++b) {
    const at::Tensor eye = at::eye(kSpins, at::kBool);
    const at::Tensor all = states[b].expand({kSpins, kSpins});
    const at::Tensor up = energy(patterns, weights, kBeta, all.masked_fill(eye, 1.0));
    const at::Tensor down = energy(patterns, weights, kBeta, all.masked_fill(eye, -1.0));
    const at::Tensor lower = at::where(up <= down, 1.0, -1.0).to(at::kDouble);
    EXPECT_TRUE(at::equal(swept[b], lower)) << b;
    changed += (lower != states[b]).sum().item<int64_t>();
  }
  EXPECT_GT(changed, 20);
}

TEST(Hopfield, FlipsAreAsManyAsAskedForAndSeeded) {
  const at::Tensor states = random_patterns(50, 16, 3);
  const at::Tensor flipped = flip_spins(states, 5, 4);
  const at::Tensor turned = (states != flipped).sum(1);
  EXPECT_TRUE((turned == 5).all().item<bool>());
  EXPECT_TRUE(testing::identical(flipped, flip_spins(states, 5, 4)));
  EXPECT_FALSE(testing::identical(flipped, flip_spins(states, 5, 5)));
  EXPECT_THROW(flip_spins(states, 17, 4), InputError);
  EXPECT_THROW(flip_spins(states, -1, 4), InputError);
  EXPECT_THROW(random_patterns(0, 4, 1), InputError);
}

TEST(Hopfield, TheBoundIsWhatTheWorstPatternsAllow) {
  // M - 1 equal competitors at the smallest distance, in the direction of one wrong spin: the worst
  // that the derivation allows, as close to the bound as numbers of patterns can be.
  constexpr int64_t kSpins = 24, kDistance = 10, kFlips = 3;
  constexpr double kBeta = 0.5;
  const double most = std::exp(log_capacity_bound(kDistance, kFlips, kBeta)) + 1;
  const at::Tensor pattern = at::ones({kSpins}, at::kDouble);
  at::Tensor competitor = pattern.clone();
  competitor.narrow(0, 0, kDistance).fill_(-1.0);
  // The turned spins agree with the competitor, as does the one at place 3, which is at risk.
  at::Tensor start = pattern.clone();
  start.narrow(0, 0, kFlips).fill_(-1.0);
  const auto restored = [&](double patterns) {
    const at::Tensor log_weights =
        at::tensor({0.0, std::log(patterns - 1)}, at::kDouble);  // so many at one place
    const at::Tensor both = at::stack({pattern, competitor});
    return at::equal(sweep(both, log_weights, kBeta, start.unsqueeze(0))[0], pattern);
  };
  EXPECT_TRUE(restored(0.999 * (most - 1) + 1));
  EXPECT_FALSE(restored(1.001 * (most - 1) + 1));
  EXPECT_EQ(guaranteed_flips(2, kDistance, kBeta), 4);  // e^(0.5 (2 2 - 2)) = e > 1; 5 gives 1/e
  EXPECT_EQ(guaranteed_flips(1, kSpins, kBeta), kSpins / 2);
  EXPECT_EQ(guaranteed_flips(1000, 1, kBeta), -1);
}

TEST(Hopfield, FindsTheSmallestDistance) {
  at::Tensor patterns = at::ones({3, 8}, at::kDouble);
  patterns[1].narrow(0, 0, 4).fill_(-1.0);
  patterns[2].narrow(0, 0, 7).fill_(-1.0);
  EXPECT_EQ(smallest_distance(patterns), 3);
  EXPECT_EQ(smallest_distance(patterns.narrow(0, 0, 1)), 8);
}

TEST(ExactEnergy, RestoresEveryPatternUnderTheBound) {
  for (const int64_t spins : {32, 64, 128}) {
    const Guarantee found = check_guarantee({.spins = spins, .patterns = spins, .trials = 10});
    EXPECT_EQ(found.restored, 1.0) << spins;
    EXPECT_GT(found.flips, 0.5) << spins;
    EXPECT_GE(found.distance, 2 * found.flips) << spins;
  }
  EXPECT_THROW(check_guarantee({.spins = 8, .patterns = 512, .trials = 2}), InputError);
}

TEST(ExactEnergy, HoldsExponentiallyMany) {
  const auto log_capacity = [](int64_t spins) {
    return std::log(exact_capacity({.spins = spins, .flips = spins / 8}));
  };
  const double slope = (log_capacity(32) - log_capacity(16)) / 16;
  // At least what random patterns are guaranteed, I(1 - 2 rho') / 2 = .158, and near the .316 at
  // which one of them, on average, comes as near to the start.
  EXPECT_GT(slope, 0.158);
  EXPECT_NEAR(slope, 0.316, 0.06);
  EXPECT_TRUE(std::isnan(exact_capacity({.spins = 32, .most_patterns = 64})));
  EXPECT_THROW(exact_capacity({.trials = 0}), InputError);
}

TEST(CompactRecovery, IsWhatTheFormulaForItsVarianceSays) {
  for (const std::string readout : {"energy", "memory"}) {
    for (const int64_t features : {128, 512}) {
      SCOPED_TRACE(readout + " " + std::to_string(features));
      const Recovery found = recover_patterns(
          {.features = features, .readout = readout, .independent_vectors = true, .trials = 40});
      EXPECT_LT(std::abs(found.bits - found.predicted_bits), 4 * found.bits_deviation);
      EXPECT_LT(found.bits_deviation, 0.03);
      EXPECT_EQ(found.exact_bits, 1.0);
      EXPECT_EQ(found.state_numbers, readout == "energy" ? features : 33 * features);
    }
  }
}

TEST(CompactRecovery, GrowsWithFeaturesAndFallsWithPatternsAndDistance) {
  for (const std::string readout : {"energy", "memory"}) {
    SCOPED_TRACE(readout);
    const auto bits = [&](int64_t features, int64_t patterns, int64_t flips) {
      return recover_patterns(
                 {.patterns = patterns, .flips = flips, .features = features, .readout = readout})
          .bits;
    };
    const double usual = bits(512, 8, 4);
    EXPECT_LT(bits(64, 8, 4), usual - 0.05);
    EXPECT_LT(usual, bits(4096, 8, 4));
    EXPECT_LT(bits(512, 64, 4), usual - 0.05);
    EXPECT_LT(bits(512, 8, 10), usual - 0.05);
  }
}

TEST(CompactRecovery, PositiveFeaturesNeedFarMoreThanTrigonometricOnes) {
  const auto bits = [](const std::string& map) {
    return recover_patterns({.feature_map = map, .features = 2048}).bits;
  };
  const double trig = bits("trig");
  EXPECT_GT(trig, 0.92);
  EXPECT_LT(bits("hyp+"), trig - 0.1);
  EXPECT_LT(bits("favor+"), trig - 0.1);
}

TEST(CompactRecovery, HoldsPatternsInProportionToItsSize) {
  // Where the exact energy would hold many times as many.
  const auto capacity = [](int64_t features) {
    return compact_capacity({.beta = 0.25, .flips = 2, .features = features, .trials = 20});
  };
  const double exponent = std::log(capacity(4096) / capacity(512)) / std::log(8.0);
  EXPECT_NEAR(exponent, 1.0, 0.2);
  EXPECT_EQ(compact_capacity({.features = 2, .trials = 5}), 0.0);
}

TEST(CompactRecovery, ForgettingKeepsTheNewest) {
  const auto bits = [](double gamma, int64_t age) {
    return recover_patterns({.patterns = 64,
                             .features = 512,
                             .readout = "memory",
                             .gamma = gamma,
                             .age = age,
                             .trials = 20})
        .bits;
  };
  EXPECT_GT(bits(0.8, 0), bits(1.0, 0) + 0.05);
  EXPECT_GT(bits(0.8, 0), bits(0.8, 20) + 0.2);
}

TEST(CompactRecovery, RefusesWhatCannotBe) {
  EXPECT_THROW(recover_patterns({.feature_map = "relu"}), InputError);
  EXPECT_THROW(recover_patterns({.features = 7}), InputError);
  EXPECT_THROW(recover_patterns({.readout = "mean"}), InputError);
  EXPECT_THROW(recover_patterns({.beta = 0}), InputError);
  EXPECT_THROW(recover_patterns({.gamma = 1.5}), InputError);
  EXPECT_THROW(recover_patterns({.patterns = 4, .age = 4}), InputError);
  EXPECT_THROW(recover_patterns({.flips = 40}), InputError);
  EXPECT_THROW(recover_patterns({.trials = 0}), InputError);
}

TEST(AttentionError, FallsAsTheRootOfTheFeaturesWithTheConstantOfTheFormula) {
  for (const std::string map : {"trig", "hyp+", "favor+"}) {
    SCOPED_TRACE(map);
    AttentionErrorOptions options{.feature_map = map,
                                  .features = 64,
                                  .value_dim = 2,
                                  .tokens = 40,
                                  .sequences = 4,
                                  .draws = 60,
                                  .independent_vectors = true};
    const AttentionError coarse = measure_attention_error(options);
    options.features = 1024;
    const AttentionError fine = measure_attention_error(options);
    EXPECT_NEAR(coarse.predicted / fine.predicted, 4.0, 1e-9);
    EXPECT_LT(std::abs(fine.relative - fine.predicted), 4 * fine.relative_deviation);
    EXPECT_LT(fine.relative_deviation, 0.1 * fine.relative);
    const double deviation = std::hypot(coarse.relative_deviation / coarse.relative,
                                        fine.relative_deviation / fine.relative);
    EXPECT_NEAR(std::log(coarse.relative / fine.relative), 0.5 * std::log(16.0), 4 * deviation);
    options.independent_vectors = false;
    EXPECT_LT(measure_attention_error(options).relative, fine.predicted);
  }
}

TEST(AttentionError, HoldsAsMuchAfterManyTokensAsAfterFew) {
  AttentionErrorOptions options{.features = 64, .tokens = 5, .sequences = 1, .draws = 1};
  EXPECT_EQ(measure_attention_error(options).state_numbers, 64 * 5);
  options.tokens = 500;
  EXPECT_EQ(measure_attention_error(options).state_numbers, 64 * 5);
}

TEST(AttentionError, RefusesWhatCannotBe) {
  EXPECT_THROW(measure_attention_error({.gamma = 0}), InputError);
  EXPECT_THROW(measure_attention_error({.tokens = 0}), InputError);
  EXPECT_THROW(measure_attention_error({.length = -1}), InputError);
  EXPECT_THROW(measure_attention_error({.feature_map = "elu+1"}), InputError);
}

TEST(Forgetting, WeighsATokenByItsAgeInAStateOfOneSize) {
  for (const std::string map : {"hyp+", "favor+", "relu"}) {
    const Forgetting found = measure_forgetting({.feature_map = map, .gamma = 0.8});
    EXPECT_NEAR(found.weights[3], 0.512, 1e-12) << map;
    EXPECT_LT(found.largest_error, 1e-12) << map;
    EXPECT_EQ(found.numbers_after_first, found.numbers_after_last);
  }
  EXPECT_THROW(measure_forgetting({.gamma = 1.01}), InputError);
  EXPECT_THROW(measure_forgetting({.tokens = 0}), InputError);
  EXPECT_THROW(measure_forgetting({.feature_map = "softmax"}), InputError);
}

}  // namespace
}  // namespace mnemosyne::nn
