#include "mnemosyne/nn/associative_memory.h"

#include "testing.h"

namespace mnemosyne::nn {
namespace {

using testing::close;

constexpr int64_t kDim = 8, kValue = 5, kSteps = 120;

/// T tokens for one batch entry and head: keys and queries scaled by D^(-1/4), so that exp(k.q) is
/// softmax attention's weight.
struct Tokens {
  at::Tensor keys, queries, values;  // [T, D], [T, D], [T, V]
};

Tokens random_tokens() {
  at::manual_seed(3);
  const double scale = 0.5 / std::pow(static_cast<double>(kDim), 0.25);
  return {at::randn({kSteps, kDim}, at::kDouble) * scale,
          at::randn({kSteps, kDim}, at::kDouble) * scale, at::randn({kSteps, kValue}, at::kDouble)};
}

at::Tensor one_token(const at::Tensor& tensor, int64_t t) { return tensor[t].view({1, 1, -1}); }

/// All tokens written; the memory after the last one.
AssociativeState write_all(const AssociativeMemory& memory, const Tokens& tokens, double gamma) {
  AssociativeState state = memory.init(1, 1, tokens.values.size(1), at::TensorOptions(at::kDouble));
  const at::Tensor decay = at::full({1}, gamma, at::kDouble);
  for (int64_t t = 0; t < tokens.keys.size(0); ++t) {
    state = memory.write(state, one_token(tokens.keys, t), one_token(tokens.values, t), decay);
  }
  return state;
}

/// gamma^(t - i) for i = 0 .. t, t the last token.
at::Tensor discounts(double gamma, int64_t count) {
  return at::pow(gamma, at::arange(count - 1, -1, -1, at::kDouble));
}

TEST(AssociativeMemory, RecurrenceIsTheExplicitDiscountedSum) {
  const Tokens tokens = random_tokens();
  constexpr double kGamma = 0.97;
  for (const std::string name : {"favor+", "hyp+", "relu"}) {
    const AssociativeMemory memory(FeatureMap({.name = name, .dim = kDim, .num_features = 16}));
    const AssociativeState state = write_all(memory, tokens, kGamma);
    const at::Tensor query = tokens.queries[kSteps - 1];
    const at::Tensor weight =
        discounts(kGamma, kSteps) *
        at::matmul(memory.feature_map()(tokens.keys), memory.feature_map()(query));
    const at::Tensor expected = at::matmul(weight, tokens.values) / weight.sum();
    const at::Tensor actual = memory.read(state, query.view({1, 1, -1})).view({-1});
    EXPECT_TRUE(close(actual, expected, {.rtol = 1e-12, .atol = 1e-13})) << name;
  }
}

/// What a memory of exact softmax weights reads, in log space: any keys.
at::Tensor exact_read(const Tokens& tokens, const at::Tensor& features_log, double gamma) {
  const int64_t count = tokens.keys.size(0);
  const at::Tensor log_weight =
      features_log + at::arange(count - 1, -1, -1, at::kDouble) * std::log(gamma);
  return at::matmul(log_weight.softmax(0), tokens.values);
}

TEST(AssociativeMemory, KeysOfAnySizeAreReadAsTheyAre) {
  // Exponents of some hundreds, in float32: without the running maximum sums overflow, and what a
  // large key leaves behind of smaller ones vanishes.
  at::manual_seed(5);
  for (const std::string name : {"favor+", "hyp+"}) {
    const AssociativeMemory memory(FeatureMap({.name = name, .dim = 3, .num_features = 8}));
    for (const double gamma : {0.5, 0.99}) {
      Tokens tokens{at::randn({60, 3}, at::kDouble), at::randn({60, 3}, at::kDouble),
                    at::randn({60, kValue}, at::kDouble)};
      tokens.keys = tokens.keys * at::logspace(1.3, -1.0, 60, 10.0, at::kDouble).unsqueeze(-1);
      AssociativeState state = memory.init(1, 1, kValue, at::TensorOptions(at::kFloat));
      const at::Tensor decay = at::full({1}, gamma, at::kFloat);
      for (int64_t t = 0; t < 60; ++t) {
        state = memory.write(state, one_token(tokens.keys, t).to(at::kFloat),
                             one_token(tokens.values, t).to(at::kFloat), decay);
      }
      const at::Tensor query = tokens.queries[0];
      const auto logs = [&](const at::Tensor& x) {
        const ops::ScaledFeatures phi = memory.feature_map().scaled(x);
        return phi.features.log() + phi.log_scale;
      };
      const at::Tensor logits = (logs(tokens.keys) + logs(query.unsqueeze(0))).logsumexp(-1);
      EXPECT_TRUE(close(memory.read(state, query.view({1, 1, -1}).to(at::kFloat)).view({-1}),
                        exact_read(tokens, logits, gamma).to(at::kFloat),
                        {.rtol = 1e-4, .atol = 1e-5}))
          << name << " " << gamma;
    }
  }
}

TEST(AssociativeMemory, GradientsAreThoseOfTheExplicitSum) {
  at::manual_seed(6);
  const AssociativeMemory memory(FeatureMap({.name = "hyp+", .dim = 2, .num_features = 4}));
  const at::Tensor keys = at::randn({7, 2}, at::kDouble).requires_grad_(true);
  const at::Tensor values = at::randn({7, 3}, at::kDouble).requires_grad_(true);
  const at::Tensor query = at::randn({2}, at::kDouble).requires_grad_(true);
  const at::Tensor gamma = at::full({1}, 0.8, at::kDouble).requires_grad_(true);
  const std::vector<at::Tensor> inputs{keys, values, query, gamma};
  AssociativeState state = memory.init(1, 1, 3, at::TensorOptions(at::kDouble));
  for (int64_t t = 0; t < 7; ++t) {
    state = memory.write(state, one_token(keys, t), one_token(values, t), gamma);
  }
  const at::Tensor read = memory.read(state, query.view({1, 1, -1})).view({-1});
  const at::Tensor weight = gamma.pow(at::arange(6, -1, -1, at::kDouble)) *
                            at::matmul(memory.feature_map()(keys), memory.feature_map()(query));
  const at::Tensor explicit_read = at::matmul(weight, values) / weight.sum();
  const at::Tensor seed = at::randn({3}, at::kDouble);
  const auto actual = torch::autograd::grad({read}, inputs, {seed});
  const auto expected = torch::autograd::grad({explicit_read}, inputs, {seed});
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_TRUE(close(actual[i], expected[i], {.rtol = 1e-8, .atol = 1e-10})) << i;
  }
}

TEST(AssociativeMemory, AMemoryOfZerosIsEmptyWhateverItsScale) {
  const AssociativeMemory memory(FeatureMap({.name = "favor+", .dim = 2, .num_features = 4}));
  const at::Tensor key = at::full({1, 1, 2}, -40.0, at::kFloat);
  AssociativeState state = memory.init(1, 1, 1, at::TensorOptions(at::kFloat));
  EXPECT_EQ(memory.read(state, key).item<float>(), 0.0f);
  state = memory.write(state, key, at::full({1, 1, 1}, 3.0f), at::full({1}, 0.9f));
  EXPECT_NEAR(memory.read(state, key).item<float>(), 3.0f, 1e-6f);
  // Nothing is kept, not even the scale.
  state = memory.write(state, key * 0.1, at::full({1, 1, 1}, -2.0f), at::zeros({1}));
  EXPECT_NEAR(memory.read(state, key).item<float>(), -2.0f, 1e-6f);
}

TEST(AssociativeMemory, ConstantFeaturesReadTheBiasCorrectedMean) {
  const Tokens tokens = random_tokens();
  constexpr double kBeta = 0.9;
  const AssociativeMemory memory(FeatureMap({.name = "constant", .num_features = 1}));
  const AssociativeState state = write_all(memory, tokens, kBeta);
  at::Tensor mean = at::zeros({kValue}, at::kDouble);
  for (int64_t t = 0; t < kSteps; ++t) mean = kBeta * mean + (1 - kBeta) * tokens.values[t];
  mean = mean / (1 - std::pow(kBeta, kSteps));
  EXPECT_TRUE(close(memory.read(state, tokens.queries[0].view({1, 1, -1})).view({-1}), mean,
                    {.rtol = 1e-12, .atol = 1e-13}));
}

TEST(AssociativeMemory, TheWeightOfAnItemFallsWithItsAge) {
  Tokens tokens = random_tokens();
  tokens.keys = tokens.keys[0].expand({6, kDim}).contiguous();
  tokens.values = at::eye(6, at::kDouble);
  const AssociativeMemory memory(FeatureMap({.name = "hyp+", .dim = kDim, .num_features = 4}));
  const AssociativeState state = write_all(memory, tokens, 0.5);
  const at::Tensor weights = memory.read(state, tokens.queries[0].view({1, 1, -1})).view({-1});
  const at::Tensor expected = discounts(0.5, 6);
  EXPECT_TRUE(close(weights, expected / expected.sum(), {.rtol = 1e-10}));
}

TEST(AssociativeMemory, TendsToDiscountedSoftmaxAttentionAsTheRootOfItsSize) {
  const Tokens tokens = random_tokens();
  constexpr double kGamma = 0.97;
  const at::Tensor query = tokens.queries[kSteps - 1];
  const at::Tensor weight = discounts(kGamma, kSteps) * at::matmul(tokens.keys, query).exp();
  const at::Tensor exact = at::matmul(weight, tokens.values) / weight.sum();
  constexpr int kSeeds = 40;
  const auto error = [&](int64_t features) {
    double sum = 0.0;
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      const FeatureMap phi({.name = "hyp+", .dim = kDim, .num_features = features, .seed = seed});
      const at::Tensor w = discounts(kGamma, kSteps) * at::matmul(phi(tokens.keys), phi(query));
      const at::Tensor estimate = at::matmul(w, tokens.values) / w.sum();
      sum += ((estimate - exact).norm() / exact.norm()).item<double>();
    }
    return sum / kSeeds;
  };
  const double coarse = error(16), fine = error(4096);
  const double rate = std::log(coarse / fine) / std::log(256.0);
  EXPECT_NEAR(rate, 0.5, 0.1) << coarse << " and " << fine;
  EXPECT_LT(fine, 0.03);
}

TEST(AssociativeMemory, SizeDoesNotDependOnTheNumberOfTokens) {
  const Tokens tokens = random_tokens();
  const AssociativeMemory memory(FeatureMap({.name = "hyp+", .dim = kDim, .num_features = 4}));
  const AssociativeState empty = memory.init(1, 1, kValue, at::TensorOptions(at::kDouble));
  const AssociativeState full = write_all(memory, tokens, 0.9);
  EXPECT_EQ(full.sums.sizes(), empty.sums.sizes());
  EXPECT_EQ(full.normaliser.sizes(), empty.normaliser.sizes());
}

TEST(AssociativeMemory, BatchesAndHeadsAreIndependent) {
  at::manual_seed(9);
  const AssociativeMemory memory(FeatureMap({.name = "hyp+", .dim = 3, .num_features = 4}));
  const at::Tensor gamma = at::tensor({0.5, 0.9}, at::kDouble);
  const at::Tensor keys = at::randn({3, 2, 3}, at::kDouble),
                   values = at::randn({3, 2, 4}, at::kDouble);
  AssociativeState state = memory.init(3, 2, 4, at::TensorOptions(at::kDouble));
  for (int step = 0; step < 2; ++step)
    state = memory.write(state, keys * (step + 1), values, gamma);
  const at::Tensor all = memory.read(state, keys);
  for (int64_t b = 0; b < 3; ++b) {
    for (int64_t h = 0; h < 2; ++h) {
      const auto part = [&](const at::Tensor& x) { return x.narrow(0, b, 1).narrow(1, h, 1); };
      AssociativeState own = memory.init(1, 1, 4, at::TensorOptions(at::kDouble));
      for (int step = 0; step < 2; ++step) {
        own = memory.write(own, part(keys) * (step + 1), part(values), gamma.narrow(0, h, 1));
      }
      EXPECT_TRUE(close(memory.read(own, part(keys)), part(all), {.rtol = 1e-12}));
    }
  }
  EXPECT_THROW(memory.write(state, keys, values, at::ones({3}, at::kDouble)), c10::Error);
}

/// Patterns in {-1, 1}^N with the energy -sum exp(<pattern, s>), exact or through random features
/// (Demircigil et al. 2017, Ramsauer et al. 2020).
class Recovery {
 public:
  static constexpr int64_t kSpins = 32;

  /// The signs that each spin of `start` takes in one sweep. `energy` maps states [B, N] to minus
  /// the energy, [B].
  template <typename Energy>
  static at::Tensor sweep(const at::Tensor& start, const Energy& energy) {
    const at::Tensor eye = at::eye(kSpins, at::kBool);
    const at::Tensor all = start.expand({kSpins, kSpins});
    const at::Tensor up = energy(all.masked_fill(eye, 1.0));
    const at::Tensor down = energy(all.masked_fill(eye, -1.0));
    return at::where(up >= down, 1.0, -1.0).to(at::kDouble);
  }

  /// The pattern with that many random spins turned.
  static at::Tensor flipped(const at::Tensor& pattern, int64_t flips) {
    const at::Tensor places = at::randperm(kSpins).narrow(0, 0, flips);
    at::Tensor sign = at::ones({kSpins}, at::kDouble);
    sign.index_fill_(0, places, -1.0);
    return pattern * sign;
  }
};

/// Rows of the Hadamard matrix of order 32: every two differ in half of the spins.
at::Tensor hadamard() {
  at::Tensor matrix = at::ones({1, 1}, at::kDouble);
  while (matrix.size(0) < Recovery::kSpins) {
    matrix = at::cat({at::cat({matrix, matrix}, 1), at::cat({matrix, -matrix}, 1)});
  }
  return matrix;
}

TEST(AssociativeMemory, RecoversEveryPatternUnderTheCapacityBound) {
  // rho = 1/2 and rho' = 1/8: the bound e^(2N (rho - 2 rho') - 2) = e^14 is far above 31.
  at::manual_seed(2);
  const at::Tensor patterns = hadamard();
  const auto energy = [&](const at::Tensor& states) {
    return at::matmul(states, patterns.t()).exp().sum(1);
  };
  for (int64_t p = 0; p < patterns.size(0); ++p) {
    const at::Tensor start = Recovery::flipped(patterns[p], 4);
    EXPECT_TRUE(at::equal(Recovery::sweep(start, energy), patterns[p])) << "pattern " << p;
  }
}

TEST(AssociativeMemory, CompactRecoveryGrowsWithTheNumberOfFeatures) {
  at::manual_seed(4);
  constexpr double kBeta = 4.0 / 32.0;
  constexpr int kTrials = 12;
  const auto recovered = [&](const std::string& name, int64_t omegas) {
    double bits = 0.0;
    for (int trial = 0; trial < kTrials; ++trial) {
      const at::Tensor patterns = at::randn({8, Recovery::kSpins}, at::kDouble).sign();
      const int64_t features = name == "favor+" ? omegas : 2 * omegas;
      const FeatureMap phi({.name = name,
                            .dim = Recovery::kSpins,
                            .num_features = features,
                            .seed = static_cast<uint64_t>(trial)});
      const at::Tensor memory = phi(patterns * std::sqrt(kBeta)).sum(0);
      const auto energy = [&](const at::Tensor& states) {
        return at::matmul(phi(states * std::sqrt(kBeta)), memory);
      };
      const at::Tensor start = Recovery::flipped(patterns[0], 4);
      bits += (Recovery::sweep(start, energy) == patterns[0]).to(at::kDouble).mean().item<double>();
    }
    return bits / kTrials;
  };
  const double few = recovered("trig", 64), some = recovered("trig", 1024);
  const double many = recovered("trig", 8192);
  EXPECT_LT(few, some);
  EXPECT_LE(some, many);
  EXPECT_GT(some, 0.9);
  EXPECT_GT(many, 0.99);
  // Positive features need exponentially many; that 8,192 do not suffice is no error.
  EXPECT_LT(recovered("favor+", 8192), many);
}

}  // namespace
}  // namespace mnemosyne::nn
