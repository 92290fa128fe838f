#include "mnemosyne/optim/population.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "mnemosyne/core/error.h"
#include "mnemosyne/optim/deferred_count.h"
#include "mnemosyne/optim/rules.h"
#include "rule_testing.h"
#include "testing.h"

namespace mnemosyne::optim {
namespace {

using mnemosyne::testing::identical;
using mnemosyne::testing::wave;

using Tensors = std::vector<at::Tensor>;
using RulePtr = std::shared_ptr<const UpdateRule>;

const std::vector<std::vector<int64_t>> kShapes{{7}, {5, 4}, {1}, {3, 2, 3, 3}, {6, 1}, {40, 33}};

/// The default rule with weights of its own.
RulePtr learned(double phase, const std::string& options = "{}") {
  const auto rule = make_rule("mnemosyne", options);
  NamedTensors weights = rule->weights();
  for (auto& [name, tensor] : weights) tensor = wave(tensor.sizes(), phase) * 0.3;
  return rule->with_weights(weights);
}

/// Tensors [P, ...] of these shapes.
Tensors stacked(int64_t members, double phase) {
  Tensors tensors;
  for (std::vector<int64_t> shape : kShapes) {
    shape.insert(shape.begin(), members);
    tensors.push_back(wave(shape, phase += 0.7));
  }
  return tensors;
}

Tensors member(const Tensors& stacked, int64_t m) {
  Tensors views;
  for (const at::Tensor& tensor : stacked) views.push_back(tensor.select(0, m));
  return views;
}

/// Steps `rules` side by side and one after the other; both have to give the same bits.
void expect_same(const Population::Rules& rules, const std::vector<StepOptions>& options,
                 double spoiled = 0.0) {
  const auto members = static_cast<int64_t>(rules.size());
  Tensors together = stacked(members, 0.1), alone;
  for (const at::Tensor& tensor : together) alone.push_back(tensor.clone());
  Population population(rules, together);
  std::vector<State> states;
  for (int64_t m = 0; m < members; ++m) {
    states.push_back(init_state(*rules[m], member(alone, m)));
  }
  std::vector<char> alive(rules.size(), 1);
  for (int step = 0; step < 8; ++step) {
    const Tensors grads = stacked(members, 3.0 + step);
    if (step == 3 && spoiled != 0.0) grads[1].select(0, 1).select(0, 2).fill_(spoiled);
    if (step == 5) alive[0] = 0;
    population.step_(grads, options, alive);
    for (int64_t m = 0; m < members; ++m) {
      if (alive[m]) rules[m]->step_(member(grads, m), states[m], member(alone, m), options[m]);
    }
  }
  for (size_t i = 0; i < alone.size(); ++i) EXPECT_TRUE(identical(together[i], alone[i])) << i;
  for (int64_t m = 0; m < members; ++m) {
    const State& state = population.state(m);
    for (size_t i = 0; i < state.size(); ++i) {
      for (size_t k = 0; k < state[i].size(); ++k) {
        EXPECT_TRUE(identical(state[i][k], states[m][i][k])) << m << " " << i << " " << k;
      }
    }
  }
}

TEST(Population, OfLearnedRulesIsEachOfThemBitForBit) {
  Population::Rules rules;
  std::vector<StepOptions> options;
  for (int m = 0; m < 5; ++m) {
    rules.push_back(learned(0.4 + m));
    options.push_back({.lr = 1.0 + 0.1 * m});
    if (m % 2 == 1) options.back().num_steps = 8 + m;
    if (m == 2) options.back().weight_decay = 0.1;
  }
  expect_same(rules, options);
  expect_same(rules, options, std::numeric_limits<double>::quiet_NaN());
  expect_same(rules, options, 3e38);
}

TEST(Population, OfBaseRulesIsEachOfThemBitForBit) {
  const Population::Rules rules{make_rule("orthogonal", "{}"),
                                make_rule("orthogonal", R"({"momentum": 0.8})"),
                                make_rule("orthogonal", "{}")->elementwise()};
  expect_same(rules, {{.lr = 1.0}, {.lr = 0.5, .num_steps = 9}, {.lr = 2.0}});
}

TEST(Population, TakesRulesOfAnyKindSideBySide) {
  const Population::Rules rules{learned(0.2),
                                learned(1.2),
                                learned(2.2, R"({"mixture_bound": 0.25})"),
                                make_rule("mnemosyne", R"({"learned": false})"),
                                make_rule("orthogonal", "{}"),
                                make_rule("adamw", "{}"),
                                make_rule("lstm", "{}"),
                                make_rule("schedule-free", "{}")};
  std::vector<StepOptions> options(rules.size(), StepOptions{.lr = 0.01});
  expect_same(rules, options);
  DeferredCount count;
  options[1].fallbacks = &count;  // counts of one list alone
  expect_same(rules, options, std::numeric_limits<double>::infinity());
}

TEST(Population, GivesWhereItsMembersShouldBeEvaluated) {
  const RulePtr average = make_rule("schedule-free", "{}"), plain = make_rule("adamw", "{}");
  const Tensors params = stacked(2, 0.0);
  Population population({average, plain}, params);
  for (int step = 0; step < 4; ++step) {
    population.step_(stacked(2, 1.0 + step), {{.lr = 0.1}, {.lr = 0.1}}, {1, 1});
  }
  const Tensors where = population.evaluation_params();
  const Tensors expected = average->evaluation_params(population.state(0), member(params, 0));
  for (size_t i = 0; i < params.size(); ++i) {
    EXPECT_TRUE(identical(where[i][0], expected[i]));
    EXPECT_FALSE(at::equal(where[i][0], params[i][0]));
    EXPECT_TRUE(identical(where[i][1], params[i][1]));
    EXPECT_FALSE(where[i].is_alias_of(params[i]));
  }
}

TEST(Population, RefusesWhatIsNotItsMembers) {
  const RulePtr rule = make_rule("adamw", "{}");
  const Tensors params = stacked(3, 0.0);
  EXPECT_THROW(Population({rule, rule}, params), InputError);
  EXPECT_THROW(Population({rule, rule, rule}, {at::zeros({3, 2}, at::kLong)}), InputError);
  Population population({rule, rule, rule}, params);
  const std::vector<StepOptions> options(3, StepOptions{.lr = 0.1});
  EXPECT_THROW(population.step_(stacked(2, 1.0), options, {1, 1, 1}), InputError);
  EXPECT_THROW(population.step_(stacked(3, 1.0), {{.lr = 0.1}}, {1, 1, 1}), InputError);
  EXPECT_THROW(population.step_(stacked(3, 1.0), options, {1, 1}), InputError);
  State other = clone_state(population.state(0));
  other[1][1] = at::zeros({3});
  EXPECT_THROW(population.set_state(0, other), InputError);
}

}  // namespace
}  // namespace mnemosyne::optim
