#include <limits>

#include "meta_toys.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/meta/evolution.h"
#include "testing.h"

namespace mnemosyne::meta {
namespace {

using mnemosyne::testing::ToyFamily;
using mnemosyne::testing::ToyRule;
using mnemosyne::testing::ToyTask;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

RunSampler toy_sampler(RunSamplerOptions options = {}) {
  return RunSampler({std::make_shared<ToyFamily>()}, options);
}

/// The fitness of one whole run at the weights (a, b): what evolution differentiates.
double toy_fitness(double a, double b, const Run& run, const FitnessOptions& options) {
  Rollout rollout(run.task, {{.rule = std::make_shared<ToyRule>(a, b)}}, run.num_steps, run.seed);
  std::vector<std::vector<float>> losses;
  while (!rollout.done()) losses.push_back(rollout.step());
  return run_fitness(losses, {}, options)[0];
}

TEST(Evolution, AgreesWithFiniteDifferencesOnAverage) {
  const double a = -1.5, b = 0.0;
  const EvolutionOptions options{
      .num_tasks = 1,
      .perturbation = {.num_pairs = 400, .sigma = 0.02, .shaping = FitnessShaping::kNone}};
  EvolutionEstimator estimator(toy_sampler({.min_steps = 20}), options);
  const OuterStep step{.index = 0, .seed = 11, .horizon = 20};
  const ToyRule rule(a, b);
  const MetaGradient estimate = estimator.estimate(rule, step);

  const meta::Run run = toy_sampler({.min_steps = 20}).sample(derive_seed(11, {1, 0, 0}), 20);
  const double h = 0.01;
  const auto f = [&](double x, double y) { return toy_fitness(x, y, run, options.fitness); };
  const double da = (f(a + h, b) - f(a - h, b)) / (2 * h);
  const double db = (f(a, b + h) - f(a, b - h)) / (2 * h);
  // One pair's estimate has the standard deviation |gradient| sqrt(1 + g_i^2 / |g|^2) <= sqrt(2)
  // |g|.
  const double bound = 4 * std::sqrt(2.0) * std::hypot(da, db) / std::sqrt(400.0);
  EXPECT_NEAR(estimate.gradient[0].item<double>(), da, bound);
  EXPECT_NEAR(estimate.gradient[1].item<double>(), db, bound);
  EXPECT_LT(bound, 0.5 * std::abs(da)) << "the bound has to be able to fail";
  EXPECT_EQ(estimate.inner_steps, 20 * 800);
}

TEST(Evolution, DoesNotDependOnTheNumberOfWorkers) {
  EvolutionEstimator estimator(toy_sampler(), {.num_tasks = 6});
  const ToyRule rule(-1.0, 1.0);
  OuterStep step{.index = 3, .seed = 5, .horizon = 60, .num_workers = 1};
  const MetaGradient one = estimator.estimate(rule, step);
  step.num_workers = 4;
  const MetaGradient four = estimator.estimate(rule, step);
  EXPECT_TRUE(at::equal(one.gradient, four.gradient));
  EXPECT_EQ(one.meta_loss, four.meta_loss);
  step.index = 4;
  EXPECT_FALSE(at::equal(one.gradient, estimator.estimate(rule, step).gradient));
}

TEST(Evolution, SkipsATaskThatIsNotFinite) {
  const auto family = std::make_shared<ToyFamily>(0.0, kNan);
  EvolutionEstimator estimator(RunSampler({family}, {}), {.num_tasks = 2});
  const MetaGradient estimate = estimator.estimate(ToyRule(-1, 0), {.seed = 1, .horizon = 50});
  EXPECT_EQ(estimate.skipped, 2);
  EXPECT_TRUE(std::isnan(estimate.meta_loss));
  EXPECT_TRUE(at::equal(estimate.gradient, at::zeros({2})));
}

TEST(Evolution, PushesAwayFromDivergence) {
  // Rates of e^4 diverge on this quadratic to infinity, smaller ones do not diverge as far.
  EvolutionEstimator estimator(toy_sampler({.min_steps = 100}),
                               {.num_tasks = 1, .perturbation = {.num_pairs = 32, .sigma = 2.0}});
  const MetaGradient estimate = estimator.estimate(ToyRule(3, -4), {.seed = 2, .horizon = 100});
  EXPECT_EQ(estimate.skipped, 0);
  EXPECT_GT(estimate.gradient[0].item<double>(), 0) << "a larger rate has to count as worse";
}

TEST(Perturbation, ScalesTensorsByName) {
  const NamedTensors weights = ToyRule(0, 0).weights();
  EXPECT_TRUE(at::equal(perturbation_scale(weights, {"decay=0.25"}), at::tensor({1.0f, 0.25f})));
  EXPECT_THROW(perturbation_scale(weights, {"absent=1"}), InputError);
  EXPECT_THROW(perturbation_scale(weights, {"decay"}), InputError);
  EXPECT_THROW(perturbation_scale(weights, {"decay=-1"}), InputError);
  EXPECT_THROW(perturbation_scale(weights, {"decay=1x"}), InputError);
}

TEST(Perturbation, GradientOfALinearFunctionIsExactInExpectation) {
  const at::Tensor slope = at::tensor({1.0f, -2.0f, 0.5f, 4.0f});
  const at::Tensor scale = at::tensor({1.0f, 0.1f, 3.0f, 0.0f});
  const at::Tensor noise = perturbation_noise(slope, 20000, 7);
  const at::Tensor values = noise.mul(scale).mul(0.3).matmul(slope);
  std::vector<double> fitness;
  for (int64_t k = 0; k < noise.size(0); ++k) {
    fitness.push_back(values[k].item<double>());
    fitness.push_back(-values[k].item<double>());
  }
  const at::Tensor gradient = antithetic_gradient(fitness, noise, scale, 0.3);
  // Standard deviation of an entry: |slope * scale| / (scale_i sqrt(K)), about .02, .2 and .007.
  EXPECT_TRUE(
      mnemosyne::testing::close(gradient * scale, slope * scale, {.rtol = 0, .atol = 0.06}));
  EXPECT_EQ(gradient[3].item<float>(), 0.0f) << "what is not perturbed stays";
}

TEST(Fitness, MixesTheEndAndTheWholeOfLogLosses) {
  std::vector<std::vector<float>> losses;
  for (int t = 0; t < 20; ++t) losses.push_back({t < 18 ? 2.0f : 1.0f, 2.0f});
  const FitnessOptions options{.final_weight = 0.25, .final_fraction = 0.1, .smoothing = 1};
  const std::vector<double> fitness = run_fitness(losses, {}, options);
  const double drop = std::log(0.5 + 1e-6), same = std::log(1 + 1e-6);
  EXPECT_NEAR(fitness[0], 0.25 * drop + 0.75 * (2 * drop + 18 * same) / 20, 1e-9);
  EXPECT_NEAR(fitness[1], same, 1e-9);
}

TEST(Fitness, DoesNotChangeWhenATaskIsScaled) {
  const FitnessOptions options;
  const std::vector<std::vector<float>> small{{4e-3f}, {2e-3f}, {1e-3f}},
      large{{4e3f}, {2e3f}, {1e3f}};
  EXPECT_NEAR(run_fitness(small, {}, options)[0], run_fitness(large, {}, options)[0], 1e-5);
}

TEST(Fitness, CountsAValidationLossOnlyWhereThereIsOne) {
  const FitnessOptions options{.validation_weight = 1.0};
  const std::vector<std::vector<float>> losses{{2.0f}, {1.0f}};
  EXPECT_NEAR(run_fitness(losses, {4.0f}, options)[0], std::log(2.0), 1e-5);
  EXPECT_LT(run_fitness(losses, {}, options)[0], 0);
}

TEST(Fitness, RanksAreCentredAndShareTies) {
  const std::vector<double> ranks = shape_fitness({3, 1, 1, kNan}, FitnessShaping::kRank);
  ASSERT_EQ(ranks.size(), 4u);
  EXPECT_NEAR(ranks[0], 2.0 / 3 - 0.5, 1e-12);
  EXPECT_NEAR(ranks[1], 0.5 / 3 - 0.5, 1e-12);
  EXPECT_NEAR(ranks[2], ranks[1], 1e-12);
  EXPECT_NEAR(ranks[3], 0.5, 1e-12);
}

TEST(Fitness, SpreadMakesTasksEquallyLoud) {
  const std::vector<double> quiet = shape_fitness({1.0, 1.1, 1.2, 1.3}, FitnessShaping::kSpread);
  const std::vector<double> loud = shape_fitness({10, 20, 30, 40}, FitnessShaping::kSpread);
  for (size_t i = 1; i < 4; ++i) EXPECT_NEAR(quiet[i] - quiet[0], loud[i] - loud[0], 1e-9);
}

TEST(Fitness, ReplacesWhatIsNotFiniteByMoreThanTheWorst) {
  const std::vector<double> shaped = shape_fitness({1, kNan, 3}, FitnessShaping::kNone);
  EXPECT_EQ(shaped, (std::vector<double>{1, 5, 3}));
  EXPECT_TRUE(shape_fitness({kNan, kNan}, FitnessShaping::kNone).empty());
  EXPECT_TRUE(shape_fitness({2, 2}, FitnessShaping::kRank).empty());
}

TEST(RunSampler, DrawsLengthsLogUniformly) {
  const RunSampler sampler = toy_sampler({.min_steps = 10});
  int short_ones = 0;
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    const int64_t length = sampler.sample(seed, 1000).num_steps;
    ASSERT_GE(length, 10);
    ASSERT_LE(length, 1000);
    short_ones += length < 100;
  }
  EXPECT_NEAR(short_ones, 1000, 80);
  EXPECT_EQ(sampler.sample(1, 4).num_steps, 4) << "a horizon below min_steps wins";
}

TEST(RunSampler, IsAPureFunctionOfTheSeed) {
  const RunSampler sampler = toy_sampler({.min_steps = 10, .known_fraction = 0.5});
  int known = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const meta::Run a = sampler.sample(seed, 500), b = sampler.sample(seed, 500);
    EXPECT_EQ(a.seed, b.seed);
    EXPECT_EQ(a.num_steps, b.num_steps);
    EXPECT_EQ(a.options().num_steps.has_value(), b.length_known);
    known += a.length_known;
  }
  EXPECT_NEAR(known, 100, 30);
  EXPECT_THROW(RunSampler({}, {}), InputError);
}

}  // namespace
}  // namespace mnemosyne::meta
