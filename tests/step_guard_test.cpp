// What is decided of gradients that run away: damped to the base rule's step, and counted.

#include "mnemosyne/optim/step_guard.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/serialize/archive.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <vector>

#include "mnemosyne/optim/deferred_count.h"
#include "mnemosyne/optim/optimizer.h"
#include "mnemosyne/optim/rules.h"
#include "mnemosyne/optim/step_features.h"
#include "mnemosyne/optim/weights.h"
#include "tests/testing.h"

namespace mnemosyne::optim {
namespace {

using testing::close;
using testing::identical;

/// Features of two tensors whose list shows this trend of the norms.
at::Tensor features_with_trend(double trend, bool aligned = false) {
  const auto& names = step_feature_names(aligned);
  const auto place = std::find(names.begin(), names.end(), "mean_norm_trend");
  at::Tensor features = at::randn({2, static_cast<int64_t>(names.size())}, at::kDouble);
  features.select(1, place - names.begin()).fill_(std::tanh(trend));
  return features;
}

TEST(StepTrust, FallsFromOneToZeroWhereNormsRunAway) {
  for (const double calm : {-5.0, 0.0, 1.0, 1.499}) {
    EXPECT_TRUE(close(step_trust(features_with_trend(calm)), at::ones({2}, at::kDouble))) << calm;
  }
  for (const double wild : {2.501, 4.0, 50.0}) {
    EXPECT_TRUE(close(step_trust(features_with_trend(wild)), at::zeros({2}, at::kDouble))) << wild;
  }
  for (const bool aligned : {false, true}) {
    const at::Tensor wild = step_trust(features_with_trend(3.0, aligned), aligned);
    EXPECT_TRUE(close(wild, at::zeros({2}, at::kDouble))) << aligned;
  }
  const double some = step_trust(features_with_trend(1.8))[0].item<double>();
  const double less = step_trust(features_with_trend(2.2))[0].item<double>();
  EXPECT_GT(some, less);
  EXPECT_GT(1.0, some);
  EXPECT_GT(less, 0.0);
}

/// The rule with the weights of the library, with some of its options changed.
std::shared_ptr<UpdateRule> shipped(const std::string& name, const std::string& changes) {
  const auto rule = default_rule(name);
  std::string options = rule->options_json();
  options.replace(options.rfind('}'), 1, changes.empty() ? "}" : ", " + changes + "}");
  return make_rule(rule->name(), options)->with_weights(rule->weights());
}

std::vector<at::Tensor> gradients(int64_t step, double scale) {
  at::manual_seed(100 + step);
  return {scale * at::randn({24, 40}), scale * at::randn({24})};
}

/// Parameters and states of rules that step side by side, by the same gradients.
struct Steps {
  explicit Steps(std::shared_ptr<UpdateRule> of) : rule(std::move(of)) {
    at::manual_seed(1);
    params = {at::randn({24, 40}), at::randn({24})};
    state = init_state(*rule, params);
  }

  void step(const std::vector<at::Tensor>& grads) {
    rule->step_(grads, state, params, {.damped = &damped});
  }

  std::shared_ptr<UpdateRule> rule;
  std::vector<at::Tensor> params;
  State state;
  DeferredCount damped;
};

class StepGuard : public ::testing::TestWithParam<std::string> {};

TEST_P(StepGuard, ChangesNothingWhileGradientsBehave) {
  Steps with(shipped(GetParam(), "")), without(shipped(GetParam(), R"("guard": false)"));
  for (int step = 0; step < 20; ++step) {
    const auto grads = gradients(step, std::exp(0.05 * step));
    with.step(grads);
    without.step(grads);
  }
  EXPECT_EQ(with.damped.total(), 0);
  for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(identical(with.params[i], without.params[i]));
}

TEST_P(StepGuard, LeavesTheBaseRulesStepWhereNormsRunAway) {
  Steps with(shipped(GetParam(), "")), without(shipped(GetParam(), R"("guard": false)"));
  double scale = 1.0;
  for (int step = 0; step < 20; ++step) {
    if (step >= 10) scale *= 4.0;
    with.step(gradients(step, scale));
    without.step(gradients(step, scale));
  }
  EXPECT_GT(with.damped.total(), 8);
  EXPECT_EQ(without.damped.total(), 0);
  // The same step by weights of zero.
  NamedTensors zeros;
  for (const auto& [name, weight] : with.rule->weights()) {
    const bool norm = name.find("norm") != std::string::npos;
    zeros.emplace_back(name, norm ? weight : at::zeros_like(weight));
  }
  const auto grads = gradients(20, 4.0 * scale);
  const auto base = with.rule->with_weights(zeros)->update(grads, with.state, with.params, {});
  const auto own = with.rule->update(grads, with.state, with.params, {});
  const auto free = without.rule->update(grads, with.state, with.params, {});
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_TRUE(close(own.updates[i], base.updates[i], {.rtol = 1e-5, .atol = 1e-7})) << i;
    EXPECT_FALSE(close(free.updates[i], base.updates[i], {.rtol = 1e-2, .atol = 1e-4})) << i;
  }
}

TEST_P(StepGuard, EndsWhenTheNormsStayWhatTheyAre) {
  Steps run(shipped(GetParam(), ""));
  for (int step = 0; step < 30; ++step) run.step(gradients(step, 1.0));
  for (int step = 30; step < 160; ++step) run.step(gradients(step, 1e6));  // another loss scale
  const int64_t held = run.damped.total();
  EXPECT_GT(held, 0);
  for (int step = 160; step < 180; ++step) run.step(gradients(step, 1e6));
  EXPECT_EQ(run.damped.total(), held);
}

INSTANTIATE_TEST_SUITE_P(Weights, StepGuard, ::testing::Values("mnemosyne", "mnemosyne-attention"),
                         [](const auto& name) {
                           return name.param == "mnemosyne" ? "controller" : "attention";
                         });

TEST(StepGuardOfTheCompactRule, LeavesTheBaseRulesStep) {
  const auto rule = default_rule("mnemosyne-compact");
  const at::Tensor none = at::zeros_like(rule->weights()[0].second);
  const auto base = rule->with_weights({{"controller", none}});
  Steps run(rule);
  double scale = 1.0;
  for (int step = 0; step < 20; ++step) {
    if (step >= 10) scale *= 4.0;
    if (step == 10) {
      EXPECT_EQ(run.damped.total(), 0);
    }
    run.step(gradients(step, scale));
  }
  EXPECT_GT(run.damped.total(), 8);
  const auto grads = gradients(20, 4.0 * scale);
  const auto own = rule->update(grads, run.state, run.params, {});
  const auto plain = base->update(grads, run.state, run.params, {});
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_TRUE(close(own.updates[i], plain.updates[i], {.rtol = 1e-5, .atol = 1e-7})) << i;
  }
}

// One layer that wakes up beside a large one that goes on as before is no network that runs away.
TEST(StepGuardOfALayer, IsNotDampedWhenItWakesUp) {
  const auto rule = default_rule("mnemosyne");
  at::manual_seed(2);
  std::vector<at::Tensor> params = {at::randn({4, 6}), at::randn({30, 40})};
  State state = init_state(*rule, params);
  DeferredCount damped;
  for (int step = 0; step < 40; ++step) {
    at::manual_seed(200 + step);
    const double scale = step < 20 ? 1e-4 : 1.0;
    rule->step_({scale * at::randn({4, 6}), at::randn({30, 40})}, state, params,
                {.damped = &damped});
  }
  EXPECT_EQ(damped.total(), 0);
}

TEST(StepGuardOfAnOptimizer, IsCountedAlsoAcrossCheckpoints) {
  at::Tensor param = at::randn({8, 8}).requires_grad_(true);
  RuleOptimizer optimizer(std::vector<at::Tensor>{param}, default_rule("mnemosyne"));
  double scale = 1.0;
  for (int step = 0; step < 16; ++step) {
    scale *= step < 8 ? 1.0 : 5.0;
    param.mutable_grad() = scale * at::randn({8, 8});
    optimizer.step();
  }
  EXPECT_GT(optimizer.damped_count(), 0);
  torch::serialize::OutputArchive archive;
  optimizer.save(archive);
  std::stringstream file;
  archive.save_to(file);
  torch::serialize::InputArchive again;
  again.load_from(file);
  RuleOptimizer other(std::vector<at::Tensor>{param}, default_rule("mnemosyne"));
  other.load(again);
  EXPECT_EQ(other.damped_count(), optimizer.damped_count());
}

// Checkpoints of runs from before there was a guard go on.
TEST(StepGuardOption, IsNoPartOfTheIdentityOfWeightsAtItsDefault) {
  const auto rule = default_rule("mnemosyne");
  EXPECT_EQ(rule->options_json().find("guard"), std::string::npos);
  EXPECT_EQ(weights_hash(*shipped("mnemosyne", R"("guard": true)")), weights_hash(*rule));
  EXPECT_NE(weights_hash(*shipped("mnemosyne", R"("guard": false)")), weights_hash(*rule));
}

}  // namespace
}  // namespace mnemosyne::optim
