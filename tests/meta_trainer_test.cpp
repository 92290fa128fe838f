#include <algorithm>
#include <filesystem>
#include <functional>

#include "meta_toys.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/meta/evolution.h"
#include "mnemosyne/meta/mixture.h"
#include "mnemosyne/meta/persistent_evolution.h"
#include "mnemosyne/meta/trainer.h"
#include "mnemosyne/meta/truncated_gradient.h"
#include "mnemosyne/optim/rules.h"
#include "testing.h"

namespace mnemosyne::meta {
namespace {

using mnemosyne::testing::identical;
using mnemosyne::testing::ToyFamily;
using mnemosyne::testing::ToyRule;

RunSampler::Families toy_families() { return {std::make_shared<ToyFamily>(0.3)}; }

RunSampler toy_sampler() { return RunSampler(toy_families(), {.min_steps = 8}); }

Trainer toy_trainer(std::unique_ptr<GradientEstimator> estimator, TrainerOptions options) {
  return Trainer(std::make_shared<ToyRule>(-4, 0), std::move(estimator),
                 Validator(toy_families(), {.tasks_per_family = 2}, 1), std::move(options));
}

TrainerOptions small_options() {
  return {.seed = 7,
          .num_outer_steps = 6,
          .num_workers = 2,
          .validate_every = 2,
          .outer = {.learning_rate = 0.1},
          .horizon = {.lengths = {12, 24}, .steps_per_length = 4}};
}

struct EstimatorCase {
  const char* name;
  std::function<std::unique_ptr<GradientEstimator>()> make;
};

class EveryEstimator : public ::testing::TestWithParam<EstimatorCase> {};

TEST_P(EveryEstimator, ResumesBitForBit) {
  Trainer whole = toy_trainer(GetParam().make(), small_options());
  whole.run();

  const std::string path = ::testing::TempDir() + "mnemosyne_resume.safetensors";
  TrainerOptions half_options = small_options();
  half_options.num_outer_steps = 3;
  half_options.checkpoint_path = path;
  half_options.num_workers = 1;
  Trainer half = toy_trainer(GetParam().make(), half_options);
  half.run();
  Trainer rest = toy_trainer(GetParam().make(), small_options());
  rest.load(path);
  EXPECT_EQ(rest.outer_step(), 3);
  rest.run();
  std::filesystem::remove(path);

  const NamedTensors expected = whole.checkpoint(), actual = rest.checkpoint();
  ASSERT_EQ(expected.size(), actual.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(expected[i].first, actual[i].first);
    if (expected[i].first == "elapsed_seconds") continue;
    EXPECT_TRUE(identical(expected[i].second, actual[i].second)) << expected[i].first;
  }
  EXPECT_FALSE(identical(whole.last_weights()[0].second, ToyRule(-4, 0).weights()[0].second));
}

TEST_P(EveryEstimator, CanStopBeforeItsRateHasFallen) {
  const auto weights_after_three = [&](int64_t num_outer_steps, int64_t rate_steps) {
    TrainerOptions options = small_options();
    options.cosine_rate = true;
    options.num_outer_steps = num_outer_steps;
    options.rate_steps = rate_steps;
    Trainer trainer = toy_trainer(GetParam().make(), options);
    for (int i = 0; i < 3; ++i) trainer.step();
    return trainer.last_weights()[0].second;
  };
  EXPECT_TRUE(identical(weights_after_three(3, 6), weights_after_three(6, 0)));
  EXPECT_FALSE(identical(weights_after_three(3, 0), weights_after_three(6, 0)));
}

TEST_P(EveryEstimator, LearnsALargerRate) {
  TrainerOptions options = small_options();
  options.num_outer_steps = 30;
  options.validate_every = 0;
  Trainer trainer = toy_trainer(GetParam().make(), options);
  trainer.run();
  // At a rate of e^-4 the toy task has hardly moved after 24 steps.
  EXPECT_GT(trainer.last_weights()[0].second.item<float>(), -3.0f);
}

std::unique_ptr<GradientEstimator> make_evolution() {
  return std::make_unique<EvolutionEstimator>(toy_sampler(), EvolutionOptions{.num_tasks = 2});
}

std::unique_ptr<GradientEstimator> make_pes() {
  return std::make_unique<PersistentEvolutionEstimator>(
      toy_sampler(), PersistentEvolutionOptions{.num_tasks = 3, .window = 5});
}

std::unique_ptr<GradientEstimator> make_truncated() {
  return std::make_unique<TruncatedGradientEstimator>(
      toy_sampler(), TruncatedGradientOptions{.num_tasks = 4, .window = 5, .expert_rates = {0.3}});
}

std::unique_ptr<GradientEstimator> make_mixture() {
  std::vector<MixtureEstimator::Part> parts;
  parts.push_back({1.0, make_evolution()});
  parts.push_back({0.5, make_truncated()});
  parts.push_back({0.5, make_pes()});
  return std::make_unique<MixtureEstimator>(std::move(parts));
}

INSTANTIATE_TEST_SUITE_P(Estimators, EveryEstimator,
                         ::testing::Values(EstimatorCase{"evolution", make_evolution},
                                           EstimatorCase{"pes", make_pes},
                                           EstimatorCase{"truncated", make_truncated},
                                           EstimatorCase{"mixture", make_mixture}),
                         [](const auto& info) { return std::string(info.param.name); });

class CarriedEstimator : public ::testing::TestWithParam<EstimatorCase> {};

TEST_P(CarriedEstimator, RefusesACheckpointWithTensorsOfOtherShapes) {
  TrainerOptions options = small_options();
  options.validate_every = 0;
  options.horizon.lengths = {200};
  Trainer trainer = toy_trainer(GetParam().make(), options);
  trainer.step();
  const NamedTensors good = trainer.checkpoint();
  for (size_t i = 0; i < good.size(); ++i) {
    if (!good[i].first.starts_with("estimator.")) continue;
    NamedTensors bad = good;
    bad[i].second = at::zeros({7}, good[i].second.options());
    Trainer other = toy_trainer(GetParam().make(), options);
    const auto restore_and_step = [&] {
      other.restore(bad);
      other.step();
    };
    EXPECT_THROW(restore_and_step(), InputError) << good[i].first;
  }
}

INSTANTIATE_TEST_SUITE_P(Estimators, CarriedEstimator,
                         ::testing::Values(EstimatorCase{"pes", make_pes},
                                           EstimatorCase{"truncated", make_truncated}),
                         [](const auto& info) { return std::string(info.param.name); });

/// Trains a rule of these options without a pause and in two halves, which have to give the same
/// weights; the checkpoint between the halves.
NamedTensors expect_to_go_on(const EstimatorCase& estimator, const std::string& rule_options) {
  const auto rule = optim::make_rule("mnemosyne", rule_options);
  TrainerOptions options = small_options();
  options.validate_every = 0;
  options.num_outer_steps = 4;
  options.horizon.lengths = {200};
  const auto trainer = [&] {
    return Trainer(rule, estimator.make(), Validator(toy_families(), {.tasks_per_family = 1}, 1),
                   options);
  };
  Trainer whole = trainer();
  whole.run();
  Trainer half = trainer(), rest = trainer();
  half.step();
  half.step();
  const NamedTensors checkpoint = half.checkpoint();
  rest.restore(checkpoint);
  rest.run();
  const NamedTensors a = whole.last_weights(), b = rest.last_weights();
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(identical(a[i].second, b[i].second)) << a[i].first;
  }
  EXPECT_FALSE(identical(find(a, "controller"), find(rule->weights(), "controller")));
  return checkpoint;
}

TEST_P(CarriedEstimator, CarriesWhatARuleRemembersOfAList) {
  const NamedTensors checkpoint = expect_to_go_on(
      GetParam(), R"({"attention": true, "step_bound": 0.5, "attention_chunk_size": 2})");
  const auto is_shared = [](const auto& named) {
    return named.first.find(".shared.") != std::string::npos &&
           named.second.abs().max().template item<float>() > 0;
  };
  EXPECT_TRUE(std::any_of(checkpoint.begin(), checkpoint.end(), is_shared));
}

TEST_P(CarriedEstimator, CarriesTheUpdatesOfTheStepBefore) {
  const NamedTensors checkpoint =
      expect_to_go_on(GetParam(), R"({"alignment": true, "step_bound": 0.5})");
  const auto is_update = [](const auto& named) {
    return named.second.scalar_type() == at::kBFloat16 &&
           named.second.abs().max().template item<float>() > 0;
  };
  EXPECT_TRUE(std::any_of(checkpoint.begin(), checkpoint.end(), is_update));
}

TEST_P(EveryEstimator, TrainsARuleThatSeesItsAlignment) {
  expect_to_go_on(GetParam(), R"({"alignment": true, "step_bound": 0.5})");
}

/// A gradient that is always the same, to see what the trainer does with it.
class FixedEstimator : public GradientEstimator {
 public:
  explicit FixedEstimator(MetaGradient estimate) : estimate_(std::move(estimate)) {}
  MetaGradient estimate(const optim::UpdateRule&, const OuterStep&) override { return estimate_; }

 private:
  MetaGradient estimate_;
};

std::unique_ptr<GradientEstimator> fixed(std::vector<float> gradient, int64_t used = 1) {
  return std::make_unique<FixedEstimator>(
      MetaGradient{.gradient = at::tensor(gradient), .used = used, .skipped = 1});
}

TEST(Trainer, SkipsAnOuterStepWithoutAnyFiniteTask) {
  Trainer trainer = toy_trainer(fixed({1, 1}, 0), small_options());
  const OuterReport report = trainer.step();
  EXPECT_EQ(report.step, 1);
  EXPECT_EQ(report.skipped, 1);
  EXPECT_TRUE(identical(trainer.last_weights()[0].second, ToyRule(-4, 0).weights()[0].second));
}

TEST(Trainer, KeepsTheStartWhenTrainingOnlyMakesItWorse) {
  TrainerOptions options = small_options();
  options.outer.learning_rate = 0.5;
  Trainer trainer = toy_trainer(fixed({1, 0}), options);  // Against the rate: ever slower.
  std::vector<ValidationReport> validations;
  trainer.run({.on_validation = [&](const ValidationReport& v) { validations.push_back(v); }});
  ASSERT_EQ(validations.size(), 3u);
  for (const ValidationReport& report : validations) {
    EXPECT_FALSE(report.improved);
    EXPECT_GT(report.candidate.score, 0);
    EXPECT_EQ(report.best.score, 0) << "the best is still the start, compared with itself";
  }
  EXPECT_TRUE(identical(trainer.best_weights()[0].second, ToyRule(-4, 0).weights()[0].second));
}

TEST(Trainer, KeepsWhatIsBetterOnTheValidationTasks) {
  Trainer trainer = toy_trainer(fixed({-1, 0}), small_options());
  ValidationReport last;
  trainer.run({.on_validation = [&](const ValidationReport& report) { last = report; }});
  EXPECT_TRUE(last.improved);
  EXPECT_LT(last.candidate.score, 0);
  EXPECT_LE(last.candidate.mean, last.candidate.worst);
  EXPECT_TRUE(identical(trainer.best_weights()[0].second, trainer.average_weights()[0].second));
  EXPECT_EQ(last.candidate.runs.front().num_steps, 48) << "twice the horizon";
}

TEST(Trainer, StopsWhenAskedTo) {
  Trainer trainer = toy_trainer(fixed({0, 0}), small_options());
  int steps = 0;
  trainer.run(
      {.on_step = [&](const OuterReport&) { ++steps; }, .should_stop = [] { return true; }});
  EXPECT_EQ(steps, 1);
  EXPECT_FALSE(trainer.done());
}

TEST(Trainer, RefusesACheckpointOfAnotherMetaTraining) {
  const std::string path = ::testing::TempDir() + "mnemosyne_foreign.safetensors";
  Trainer trainer = toy_trainer(fixed({1, 1}), small_options());
  trainer.set_metadata({{"sigma", "0.1"}, {"seed", "1"}});
  trainer.save(path);
  trainer.load(path);
  trainer.set_metadata({{"sigma", "0.2"}});
  EXPECT_THROW(trainer.load(path), InputError);
  trainer.set_metadata({{"sigma", "0.1"}, {"shaping", "rank"}});
  EXPECT_THROW(trainer.load(path), InputError) << "a value that the file does not have";

  NamedTensors tensors = trainer.checkpoint();
  for (auto& [name, tensor] : tensors) {
    if (name == "outer.weights") tensor = at::zeros({5});
  }
  EXPECT_THROW(trainer.restore(tensors), InputError);
  std::filesystem::remove(path);
}

TEST(Trainer, RefusesARuleWithoutWeights) {
  class Plain : public ToyRule {
   public:
    Plain() : ToyRule(0, 0) {}
    NamedTensors weights() const override { return {}; }
  };
  EXPECT_THROW(Trainer(std::make_shared<Plain>(), fixed({1, 1}), Validator({}, {}, 0), {}),
               InputError);
}

TEST(OuterOptimizer, ClipsDecaysAndAverages) {
  OuterOptimizer outer(at::tensor({1.0f, 2.0f}),
                       {.learning_rate = 0.5, .clip_norm = 1.0, .ema_decay = 0.5});
  EXPECT_TRUE(at::equal(outer.average(), at::tensor({1.0f, 2.0f})));
  EXPECT_DOUBLE_EQ(outer.step(at::tensor({30.0f, 40.0f}), 1.0), 50.0);
  // Adam's first step is the sign of the gradient.
  EXPECT_TRUE(mnemosyne::testing::close(outer.weights(), at::tensor({0.5f, 1.5f})));
  EXPECT_TRUE(mnemosyne::testing::close(outer.average(), outer.weights()));
  outer.step(at::tensor({30.0f, 40.0f}), 1.0);
  const at::Tensor expected =
      (at::tensor({0.5f, 1.5f}) * 0.25 + at::tensor({0.0f, 1.0f}) * 0.5) / 0.75;
  EXPECT_TRUE(mnemosyne::testing::close(outer.average(), expected));
}

TEST(Horizon, GrowsByScheduleAndByPatience) {
  HorizonSchedule schedule({.lengths = {10, 20, 40}, .steps_per_length = 3, .patience = 2});
  for (int i = 0; i < 2; ++i) schedule.outer_step_done();
  EXPECT_EQ(schedule.current(), 10);
  schedule.outer_step_done();
  EXPECT_EQ(schedule.current(), 20);
  schedule.validated(false);
  schedule.validated(true);
  schedule.validated(false);
  EXPECT_EQ(schedule.current(), 20);
  schedule.validated(false);
  EXPECT_EQ(schedule.current(), 40);
  for (int i = 0; i < 9; ++i) schedule.outer_step_done();
  EXPECT_EQ(schedule.current(), 40);
  EXPECT_THROW(HorizonSchedule({.lengths = {20, 10}}), InputError);
  EXPECT_THROW(HorizonSchedule({.lengths = {}}), InputError);
}

}  // namespace
}  // namespace mnemosyne::meta
