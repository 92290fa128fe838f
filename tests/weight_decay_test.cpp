// Weight decay of every rule: step size * weight_decay * p, as users of AdamW mean it.

#include <cmath>

#include "mnemosyne/core/error.h"
#include "mnemosyne/optim/optimizer.h"
#include "mnemosyne/optim/rules.h"
#include "rule_testing.h"
#include "testing.h"

namespace mnemosyne::optim {
namespace {

using mnemosyne::testing::clones;
using mnemosyne::testing::close;
using mnemosyne::testing::identical;
using mnemosyne::testing::wave;
using mnemosyne::testing::waves;

constexpr double kDecay = 0.2;
const std::vector<std::vector<int64_t>> kShapes{{5, 4}, {7}, {}, {3, 2, 2}};

// What a step is in AdamW's units at t = 1, written down by hand: lr for torch's optimizers, the
// schedule's value for ours, the scale of the output for the LSTMs, and for the coordinate-wise
// rule the size of the parameter times its rate.
double first_step_size(const std::string& rule, double lr, const at::Tensor& param) {
  if (rule == "lstm") return lr * 0.01;
  if (rule == "lstm-rnnprop") return lr * 0.1;
  // Warm-up of ten steps, and the largest boost.
  if (rule == "orthogonal" || rule == "mnemosyne" || rule == "mnemosyne-compact" ||
      rule == "mnemosyne-tensor" || rule == "mnemosyne-super") {
    return lr * 1e-2 * 0.1 * 2.5;
  }
  if (rule == "normuon") return param.dim() >= 2 ? lr : lr * 0.015;
  if (rule == "amuse") return lr / 50;  // warm-up
  if (rule == "mnemosyne-coordinate") {
    return lr * 0.03 * std::max(param.square().mean().sqrt().item<double>(), 0.03);
  }
  return lr;
}

class EveryRuleDecays : public ::testing::TestWithParam<std::string> {
 protected:
  std::shared_ptr<UpdateRule> rule() const { return make_rule(GetParam()); }
};

TEST_P(EveryRuleDecays, ByStepSizeTimesWeightDecay) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    const double exact = dtype == at::kDouble ? 1e-6 : 1e-3;
    const std::vector<at::Tensor> params = waves(kShapes, 0.0, dtype);
    const std::vector<at::Tensor> grads = waves(kShapes, 3.0, dtype);
    const StepOptions without{.lr = 0.5, .weight_decay = 0.0};
    const StepOptions with{.lr = 0.5, .weight_decay = kDecay};
    const State state = init_state(*rule(), params);
    const UpdateResult plain = rule()->update(grads, state, params, without);
    const UpdateResult decayed = rule()->update(grads, state, params, with);
    std::vector<at::Tensor> plain_params = clones(params), decayed_params = clones(params);
    State plain_state = clone_state(state), decayed_state = clone_state(state);
    rule()->step_(grads, plain_state, plain_params, without);
    rule()->step_(grads, decayed_state, decayed_params, with);
    for (size_t i = 0; i < params.size(); ++i) {
      const at::Tensor expected = first_step_size(GetParam(), 0.5, params[i]) * kDecay * params[i];
      const mnemosyne::testing::Tolerance tolerance{exact, 1e-7};
      EXPECT_TRUE(close(decayed.updates[i] - plain.updates[i], expected, tolerance)) << i;
      EXPECT_TRUE(close(plain_params[i] - decayed_params[i], expected, tolerance)) << i;
    }
  }
}

TEST_P(EveryRuleDecays, AtEveryStepOfASchedule) {
  // The share of the 15th step of 20, from the two runs' parameters and the rule's own step size.
  const std::vector<std::vector<int64_t>> shapes{{5, 4}, {7}};
  std::vector<at::Tensor> params = waves(shapes, 0.0, at::kDouble);
  State state = init_state(*rule(), params);
  const StepOptions without{.lr = 0.5, .weight_decay = 0.0, .num_steps = 20};
  const StepOptions with{.lr = 0.5, .weight_decay = kDecay, .num_steps = 20};
  for (int step = 0; step < 14; ++step) {
    rule()->step_(waves(shapes, 3.0 + step, at::kDouble), state, params, without);
  }
  const auto grads = waves(shapes, 30.0, at::kDouble);
  const auto plain = rule()->update(grads, state, params, without);
  const auto decayed = rule()->update(grads, state, params, with);
  const std::vector<double> sizes = rule()->step_sizes(state, params, with);
  for (size_t i = 0; i < params.size(); ++i) {
    at::Tensor difference = decayed.updates[i] - plain.updates[i];
    at::Tensor expected = sizes[i] * kDecay * params[i];
    if (GetParam() == "schedule-free") {
      // The fast iterate is what decays.
      difference = plain.state[i][2] - decayed.state[i][2];
    }
    if (GetParam() == "amuse") {
      difference = plain.state[i][2] - decayed.state[i][2];
      expected = sizes[i] * kDecay * state[i][2];
    }
    EXPECT_TRUE(close(difference, expected, {1e-8, 1e-12})) << i;
    EXPECT_GT(sizes[i], 0.0);
  }
}

TEST_P(EveryRuleDecays, NotAtAllWhenToldZero) {
  std::vector<at::Tensor> params{wave({4, 4}, 0.0, at::kDouble)};
  const at::Tensor before = params[0].clone();
  State state = init_state(*rule(), params);
  const std::vector<at::Tensor> grads{at::zeros({4, 4}, at::kDouble)};
  const auto zero = rule()->update(grads, state, params, {.lr = 1.0, .weight_decay = 0.0});
  const auto unset = rule()->update(grads, state, params, {.lr = 1.0});
  const double own = rule()->default_weight_decay();
  EXPECT_EQ(own, GetParam() == "adamw" ? 0.01 : GetParam() == "amuse" ? 0.05 : 0.0);
  const double size = rule()->step_sizes(state, params, {.lr = 1.0})[0];
  EXPECT_TRUE(close(unset.updates[0] - zero.updates[0], size * own * params[0], {1e-9, 1e-12}));
}

INSTANTIATE_TEST_SUITE_P(Registry, EveryRuleDecays, ::testing::ValuesIn(rule_names()),
                         mnemosyne::testing::name_of_test);

TEST(WeightDecay, OfSixteenBitsIsRoundedOnceWithTheUpdate) {
  // A share of 2^-10 of 1 would be lost if it were taken off by itself.
  const auto rule = make_rule("sgd", R"({"momentum": 0})");
  std::vector<at::Tensor> params{at::ones({3}, at::kBFloat16)};
  State state = init_state(*rule, params);
  const std::vector<at::Tensor> grads{at::full({3}, 0.0015, at::kBFloat16)};
  rule->step_(grads, state, params, {.lr = 1.0, .weight_decay = 0.0009765625});
  EXPECT_TRUE(close(params[0], at::full({3}, 0.99609375), {0, 0}));
}

TEST(WeightDecay, OfAnOptimizerThatNamesNoneIsTheRules) {
  const auto decay_of = [](const RuleOptions& options) {
    std::vector<at::Tensor> params{at::ones({2}).requires_grad_()};
    RuleOptimizer optimizer(params, make_rule("adamw"), options);
    return *static_cast<const RuleOptions&>(optimizer.param_groups()[0].options()).weight_decay();
  };
  EXPECT_EQ(decay_of(RuleOptions()), 0.01);
  EXPECT_EQ(decay_of(RuleOptions().weight_decay(0.0)), 0.0);
}

TEST(WeightDecay, OfAGroupThatSaysZeroIsZero) {
  std::vector<at::Tensor> params{at::ones({2}).requires_grad_(), at::ones({2}).requires_grad_()};
  std::vector<torch::optim::OptimizerParamGroup> groups;
  groups.emplace_back(std::vector<at::Tensor>{params[0]});
  groups.emplace_back(std::vector<at::Tensor>{params[1]},
                      std::make_unique<RuleOptions>(RuleOptions().weight_decay(0.0)));
  RuleOptimizer optimizer(groups, make_rule("adamw"), RuleOptions().lr(0.5));
  for (const at::Tensor& param : params) param.mutable_grad() = at::zeros({2});
  optimizer.step();
  EXPECT_TRUE(close(params[0], at::full({2}, 0.995)));
  EXPECT_TRUE(identical(params[1].detach(), at::ones({2})));
}

}  // namespace
}  // namespace mnemosyne::optim
