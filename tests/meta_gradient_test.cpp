#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "meta_toys.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/meta/mixture.h"
#include "mnemosyne/meta/persistent_evolution.h"
#include "mnemosyne/meta/rollout.h"
#include "mnemosyne/meta/truncated_gradient.h"
#include "mnemosyne/optim/rules.h"
#include "testing.h"

namespace mnemosyne::meta {
namespace {

using mnemosyne::testing::close;
using mnemosyne::testing::ToyFamily;
using mnemosyne::testing::ToyRule;
using mnemosyne::testing::ToyTask;

RunSampler sampler_of(std::shared_ptr<const tasks::TaskFamily> family, int64_t min_steps) {
  return RunSampler({std::move(family)}, {.min_steps = min_steps});
}

/// One network of a task, unrolled by hand.
struct Unroll {
  std::shared_ptr<const tasks::Task> task;
  std::unique_ptr<tasks::BatchStream> stream;
  at::Tensor x;
  optim::State state;
  int64_t step = 0;

  Unroll(const meta::Run& run, const optim::UpdateRule& rule)
      : task(run.task), stream(run.task->train_stream(run.seed)), x(run.task->init(run.seed)[0]) {
    state = optim::init_state(rule, std::vector<at::Tensor>{x});
  }

  at::Tensor loss() {
    return task->loss(std::vector<at::Tensor>{x.unsqueeze(0)}, stream->at(step))[0];
  }

  at::Tensor detached_gradient() {
    const at::Tensor leaf = x.detach().unsqueeze(0).requires_grad_(true);
    const at::Tensor value = task->loss(std::vector<at::Tensor>{leaf}, stream->at(step)).sum();
    return torch::autograd::grad({value}, {leaf})[0].squeeze(0);
  }

  at::Tensor update(const optim::UpdateRule& rule, const at::Tensor& grad) {
    optim::UpdateResult result =
        rule.update(std::vector<at::Tensor>{grad}, state, std::vector<at::Tensor>{x.detach()}, {});
    state = result.state;
    ++step;
    return result.updates[0];
  }
};

/// Gradient of the window's mean log-loss through an explicit graph; cuts the graph at its end.
at::Tensor explicit_window(Unroll& unroll, int64_t window, double floor) {
  const ToyRule initial(-2, 0.5);
  const at::Tensor theta = flatten(initial.weights()).requires_grad_(true);
  const auto rule = initial.with_weights(unflatten(theta, initial.weights()));
  at::Tensor objective = at::zeros({});
  for (int64_t s = 0; s < window; ++s) {
    unroll.x = unroll.x - unroll.update(*rule, unroll.detached_gradient());
    objective = objective + (unroll.loss() + floor).log() / static_cast<double>(window);
  }
  const at::Tensor gradient = torch::autograd::grad({objective}, {theta})[0];
  unroll.x = unroll.x.detach();
  for (at::Tensor& tensor : unroll.state[0]) tensor = tensor.detach();
  return gradient;
}

TEST(TruncatedGradient, EqualsAutogradThroughTheUnrolledGraph) {
  const RunSampler sampler = sampler_of(std::make_shared<ToyFamily>(0.3), 60);
  const TruncatedGradientOptions options{
      .num_tasks = 1, .window = 5, .imitation_fraction = 0, .fitness = {.loss_floor = 0.01}};
  TruncatedGradientEstimator estimator(sampler, options);
  const ToyRule rule(-2, 0.5);
  // First lives are cut: this one has to have three windows.
  uint64_t seed = 0;
  while (life_run(sampler, {.horizon = 60}, seed, 5).num_steps < 15) ++seed;
  const meta::Run run = life_run(sampler, {.horizon = 60}, seed, 5);
  Unroll unroll(run, rule);
  const double floor = 0.01 * unroll.loss().item<double>();
  for (int64_t window = 0; window < 3; ++window) {
    const MetaGradient estimate = estimator.estimate(rule, {window, seed, 60});
    const at::Tensor expected = explicit_window(unroll, 5, floor);
    EXPECT_TRUE(close(estimate.gradient, expected, {.rtol = 1e-5, .atol = 1e-7})) << window;
    EXPECT_GT(expected.abs().min().item<double>(), 1e-4) << "both weights have to matter";
    EXPECT_EQ(estimate.inner_steps, 5);
  }
}

TEST(TruncatedGradient, ImitatesTheExpertAlongItsTrajectory) {
  const RunSampler sampler = sampler_of(std::make_shared<ToyFamily>(0.3), 60);
  const TruncatedGradientOptions options{
      .num_tasks = 1, .window = 4, .imitation_fraction = 1, .expert_rates = {0.05}};
  TruncatedGradientEstimator estimator(sampler, options);
  const ToyRule initial(-2, 0.5);
  const MetaGradient estimate = estimator.estimate(initial, {0, 9, 60});

  const meta::Run run = life_run(sampler, {.horizon = 60}, 9, 4);
  const auto adam = optim::make_rule("adam");
  const at::Tensor theta = flatten(initial.weights()).requires_grad_(true);
  const auto rule = initial.with_weights(unflatten(theta, initial.weights()));
  Unroll learner(run, *rule);
  optim::State expert_state = optim::init_state(*adam, std::vector<at::Tensor>{learner.x});
  at::Tensor objective = at::zeros({});
  for (int64_t s = 0; s < 4; ++s) {
    const at::Tensor grad = learner.detached_gradient();
    const double factor = 0.5 * (1 + std::cos(M_PI * s / static_cast<double>(run.num_steps)));
    optim::UpdateResult expert = adam->update(std::vector<at::Tensor>{grad}, expert_state,
                                              std::vector<at::Tensor>{learner.x}, {.lr = 0.05});
    expert_state = expert.state;
    const at::Tensor target = expert.updates[0] * factor;
    const at::Tensor error = (learner.update(*rule, grad) - target).square().mean();
    objective = objective + 0.5 * error / expert.updates[0].square().mean() / 4.0;
    learner.x = learner.x - target;
  }
  const at::Tensor expected = torch::autograd::grad({objective}, {theta})[0];
  EXPECT_TRUE(close(estimate.gradient, expected, {.rtol = 1e-5, .atol = 1e-7}));
  EXPECT_NEAR(estimate.runs.at(0).meta_loss, objective.item<double>(), 1e-5);
  EXPECT_EQ(estimate.runs.at(0).task, "imitation.toy");
}

TEST(TruncatedGradient, SkipsAWindowThatIsNotFiniteAndStartsAnotherLife) {
  const RunSampler sampler = sampler_of(std::make_shared<ToyFamily>(), 60);
  TruncatedGradientEstimator estimator(sampler,
                                       {.num_tasks = 2, .window = 40, .imitation_fraction = 0});
  const ToyRule explosive(30, -3);
  const MetaGradient estimate = estimator.estimate(explosive, {0, 2, 60});
  EXPECT_EQ(estimate.skipped, 2);
  EXPECT_EQ(estimate.used, 0);
  EXPECT_TRUE(at::equal(estimate.gradient, at::zeros({2})));
  EXPECT_EQ(estimator.estimate(ToyRule(-2, 0), {1, 2, 60}).used, 2);
}

/// A task that is the same for every seed, so that repeated estimates are of one number.
class SameTask : public ToyTask {
 public:
  std::vector<at::Tensor> init(uint64_t) const override { return ToyTask::init(0); }
};

class SameFamily : public tasks::TaskFamily {
 public:
  std::string name() const override { return "same"; }
  std::shared_ptr<const tasks::Task> sample(uint64_t) const override {
    return std::make_shared<SameTask>();
  }
};

/// Mean of log(L_t / L_0) over the whole run, what persistent evolution differentiates.
double mean_log_loss(double log_rate, double decay_logit, int64_t steps) {
  Rollout rollout(std::make_shared<SameTask>(),
                  {{.rule = std::make_shared<ToyRule>(log_rate, decay_logit)}}, steps, 0);
  double sum = 0, first = 0;
  while (!rollout.done()) {
    const double loss = rollout.step()[0];
    if (first == 0) first = loss;
    sum += std::log(loss / first + 1e-6);
  }
  return sum / static_cast<double>(steps);
}

TEST(PersistentEvolution, IsUnbiasedOverTheWholeLife) {
  constexpr int64_t kSteps = 9, kWindow = 3, kLives = 30;
  const double a = -2, b = 1, h = 0.01;
  PersistentEvolutionEstimator estimator(
      sampler_of(std::make_shared<SameFamily>(), kSteps),
      {.num_tasks = 1,
       .window = kWindow,
       .perturbation = {.num_pairs = 40, .sigma = 0.02, .shaping = FitnessShaping::kNone}});
  const ToyRule rule(a, b);
  int64_t index = 0;
  const auto next = [&] { return estimator.estimate(rule, {index++, 5, kSteps}).gradient; };
  // The first life is cut; three windows later every life has its full length.
  for (int64_t i = 0; i < 3; ++i) next();
  std::vector<at::Tensor> lives;
  for (int64_t i = 0; i < kLives; ++i) lives.push_back((next() + next() + next()) / 3.0);

  const at::Tensor all = at::stack(lives).to(at::kDouble);
  const at::Tensor mean = all.mean(0), error = all.std(0) / std::sqrt(1.0 * kLives);
  const auto f = [&](double x, double y) { return mean_log_loss(x, y, kSteps); };
  const double expected[] = {(f(a + h, b) - f(a - h, b)) / (2 * h),
                             (f(a, b + h) - f(a, b - h)) / (2 * h)};
  for (int64_t i = 0; i < 2; ++i) {
    EXPECT_LT(std::abs(mean[i].item<double>() - expected[i]), 4 * error[i].item<double>()) << i;
    EXPECT_LT(5 * error[i].item<double>(), std::abs(expected[i]))
        << "the test has to be able to fail";
  }
}

TEST(PersistentEvolution, GivesTheSameForAnyNumberOfWorkers) {
  const RunSampler sampler = sampler_of(std::make_shared<ToyFamily>(0.2), 10);
  PersistentEvolutionEstimator one(sampler, {.num_tasks = 4, .window = 6});
  PersistentEvolutionEstimator many(sampler, {.num_tasks = 4, .window = 6});
  for (int64_t index = 0; index < 5; ++index) {
    const at::Tensor a = one.estimate(ToyRule(-1, 0), {index, 3, 30, 1}).gradient;
    const at::Tensor b = many.estimate(ToyRule(-1, 0), {index, 3, 30, 3}).gradient;
    EXPECT_TRUE(at::equal(a, b)) << index;
  }
}

class ConstantEstimator : public GradientEstimator {
 public:
  explicit ConstantEstimator(MetaGradient estimate) : estimate_(std::move(estimate)) {}
  MetaGradient estimate(const optim::UpdateRule&, const OuterStep&) override { return estimate_; }

 private:
  MetaGradient estimate_;
};

MixtureEstimator mixture_of(const at::Tensor& a, const at::Tensor& b, bool normalize) {
  std::vector<MixtureEstimator::Part> parts;
  parts.push_back({3.0, std::make_unique<ConstantEstimator>(
                            MetaGradient{.gradient = a, .meta_loss = 1, .used = 2})});
  parts.push_back({1.0, std::make_unique<ConstantEstimator>(
                            MetaGradient{.gradient = b, .meta_loss = std::nan(""), .skipped = 1})});
  return MixtureEstimator(std::move(parts), normalize);
}

TEST(Mixture, AddsGradientsByTheirShares) {
  const at::Tensor a = at::tensor({3.0f, 4.0f}), b = at::tensor({0.0f, 100.0f});
  const ToyRule rule(0, 0);
  const MetaGradient plain = mixture_of(a, b, false).estimate(rule, {});
  EXPECT_TRUE(close(plain.gradient, 0.75 * a + 0.25 * b));
  const MetaGradient even = mixture_of(a, b, true).estimate(rule, {});
  EXPECT_TRUE(close(even.gradient, 0.75 * a / 5 + 0.25 * b / 100));
  EXPECT_EQ(even.meta_loss, 1) << "a part without a finite loss has no say in the mean";
  EXPECT_EQ(even.used, 2);
  EXPECT_EQ(even.skipped, 1);
  EXPECT_TRUE(close(mixture_of(a, at::zeros({2}), true).estimate(rule, {}).gradient, 0.15 * a));
  EXPECT_THROW(MixtureEstimator({}), InputError);
}

}  // namespace
}  // namespace mnemosyne::meta
