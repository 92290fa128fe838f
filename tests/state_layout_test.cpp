// A state that is not that of its parameter is refused before anything is read or written.

#include "mnemosyne/optim/state_layout.h"

#include <algorithm>
#include <limits>
#include <random>
#include <set>

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
using mnemosyne::testing::kAllShapes;
using mnemosyne::testing::wave;

constexpr at::ScalarType kDtypes[] = {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf};

// The message of the InputError that a call throws; empty when it throws none.
template <typename Call>
std::string refusal(const Call& call) {
  try {
    call();
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

class EveryRulesState : public ::testing::TestWithParam<std::string> {
 protected:
  std::shared_ptr<UpdateRule> rule() const { return make_rule(GetParam()); }
};

TEST_P(EveryRulesState, IsWhatTheLayoutSays) {
  for (const at::ScalarType dtype : kDtypes) {
    for (const auto& shape : kAllShapes) {
      const at::Tensor param = wave(shape, 0.0, dtype);
      const StateLayout layout = rule()->state_layout(param);
      const ParamState state = rule()->init(param);
      EXPECT_EQ(refusal([&] { check_state(layout, state, "test", "p"); }), "");
      EXPECT_EQ(layout[0].name, "step");
      std::set<std::string> names;
      for (const StateEntry& entry : layout) {
        EXPECT_TRUE(names.insert(entry.name).second) << entry.name;
        if (entry.like_param) {
          EXPECT_EQ(at::IntArrayRef(entry.shape), param.sizes()) << entry.name;
        }
      }
    }
  }
}

// A random shape of 0 to 5 dimensions with few elements, some of them zero.
std::vector<int64_t> random_shape(std::mt19937& random) {
  std::vector<int64_t> shape(random() % 6);
  for (int64_t& size : shape) size = static_cast<int64_t>(random() % 5);
  return shape;
}

// A state that differs from that of the parameter in one way or another; sometimes in none.
ParamState random_state(const UpdateRule& rule, const at::Tensor& param, std::mt19937& random) {
  const at::Tensor other =
      random() % 2 == 0 ? param : wave(random_shape(random), 1.0, kDtypes[random() % 4]);
  ParamState state = rule.init(other);
  const size_t k = random() % state.size();
  switch (random() % 8) {
    case 0:
      state[k] = at::zeros(random_shape(random), state[k].options());
      break;
    case 1:
      state[k] = state[k].to(state[k].scalar_type() == at::kFloat ? at::kDouble : at::kFloat);
      break;
    case 2:
      state.pop_back();
      break;
    case 3:
      state.push_back(state[k]);
      break;
    case 4:
      state[k] = at::Tensor();
      break;
    case 5:
      std::swap(state[k], state[random() % state.size()]);
      break;
    case 6:
      state[0] = at::full({}, -3, at::kLong);
      break;
    default:
      break;
  }
  return state;
}

bool fits(const UpdateRule& rule, const at::Tensor& param, const ParamState& state) {
  const ParamState right = rule.init(param);
  if (state.size() != right.size()) return false;
  for (size_t k = 0; k < state.size(); ++k) {
    if (!state[k].defined() || state[k].sizes() != right[k].sizes() ||
        state[k].scalar_type() != right[k].scalar_type()) {
      return false;
    }
  }
  return step_count(state) >= 0;
}

TEST_P(EveryRulesState, FuzzedIsRefusedOrRight) {
  std::mt19937 random(20261127);
  int refused = 0, taken = 0;
  for (int round = 0; round < 400; ++round) {
    const at::ScalarType dtype = kDtypes[random() % 4];
    std::vector<at::Tensor> params{wave({3, 4}, 0.0, dtype),
                                   wave(random_shape(random), 0.0, dtype)};
    const std::vector<at::Tensor> grads{wave({3, 4}, 2.0, dtype),
                                        wave(params[1].sizes(), 3.0, dtype)};
    State state{rule()->init(params[0]), random_state(*rule(), params[1], random)};
    const bool right = fits(*rule(), params[1], state[1]);
    const std::vector<at::Tensor> before = clones(params);
    const StepOptions options{.lr = 0.01, .weight_decay = 0.1};
    const std::string pure = refusal([&] { rule()->update(grads, state, params, options); });
    const std::string in_place = refusal([&] { rule()->step_(grads, state, params, options); });
    EXPECT_EQ(pure.empty(), right);
    EXPECT_EQ(in_place, pure);
    ++(right ? taken : refused);
    if (right) continue;
    EXPECT_NE(pure.find("for parameter 1, got"), std::string::npos) << pure;
    EXPECT_EQ(pure.find('\n'), std::string::npos) << pure;
    EXPECT_TRUE(identical(params[0], before[0])) << "written before everything was checked";
    EXPECT_EQ(step_count(state[0]), 0);
  }
  EXPECT_GT(refused, 50);
  EXPECT_GT(taken, 20);
}

TEST_P(EveryRulesState, MayHaveAnyStrides) {
  std::vector<at::Tensor> params{wave({6, 5}, 0.0)}, strided = clones(params);
  State state = init_state(*rule(), params), other = init_state(*rule(), strided);
  for (int step = 0; step < 3; ++step) {
    for (at::Tensor& tensor : other[0]) {
      if (tensor.dim() < 2) continue;
      tensor = tensor.transpose(0, -1).contiguous().transpose(0, -1);
    }
    const std::vector<at::Tensor> grads{wave({6, 5}, 3.0 + step)};
    rule()->step_(grads, state, params, {.lr = 0.01});
    rule()->step_(grads, other, strided, {.lr = 0.01});
  }
  EXPECT_TRUE(close(strided[0], params[0]));
}

TEST_P(EveryRulesState, IsOfARealParameterAndAGradientOfItsShape) {
  const auto step = [&](const at::Tensor& param, const at::Tensor& grad) {
    State state = init_state(*rule(), {param});
    return refusal([&] { rule()->step_({grad}, state, {param}, {}); });
  };
  EXPECT_NE(step(at::ones({2, 3}), at::ones({3, 2})).find("gradient of shape [2, 3]"),
            std::string::npos);
  EXPECT_NE(step(at::ones({2, 3}), at::ones({2})).find("got dense Float [2]"), std::string::npos);
  EXPECT_NE(step(at::ones({2, 3}), at::Tensor()).find("got none"), std::string::npos);
  const at::Tensor complex = at::ones({2}, at::kComplexFloat);
  EXPECT_NE(step(complex, complex).find("floating-point"), std::string::npos);
}

TEST_P(EveryRulesState, OfAGrownParameterIsRefusedByTheOptimizer) {
  std::vector<at::Tensor> params{at::ones({2}).requires_grad_(), at::ones({4, 3}).requires_grad_()};
  RuleOptimizer optimizer(params, make_rule(GetParam()));
  for (const at::Tensor& param : params) param.mutable_grad() = at::ones(param.sizes());
  optimizer.step();
  params[1].set_data(at::ones({400, 30}));
  params[1].mutable_grad() = at::ones({400, 30});
  const at::Tensor before = params[0].detach().clone();
  const std::string message = refusal([&] { optimizer.step(); });
  if (rule()->state_names().size() > 1) {
    EXPECT_NE(message.find("for parameter 1 of group 0, got"), std::string::npos) << message;
    EXPECT_TRUE(identical(params[0].detach(), before));
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, EveryRulesState, ::testing::ValuesIn(rule_names()),
                         mnemosyne::testing::name_of_test);

TEST(State, IsNamedInTheRefusal) {
  const auto rule = make_rule("orthogonal");
  const at::Tensor param = at::ones({40, 6});
  State state{rule->init(at::ones({8, 4}))};
  EXPECT_EQ(
      refusal([&] { rule->step_({at::ones({40, 6})}, state, {param}, {}); }),
      "[orthogonal] expected momentum of float32 [40, 6] for parameter 0, got float32 [8, 4]");
}

TEST(State, OfAnotherListIsRefused) {
  const auto rule = make_rule("sgd");
  const at::Tensor param = at::ones({2});
  State none;
  EXPECT_EQ(refusal([&] { rule->step_({at::ones({2})}, none, {param}, {}); }),
            "[sgd] expected a gradient and a state for each of 1 parameters, got 1 and 0");
}

TEST(State, OfScheduleFreeIsCheckedBeforeAveraging) {
  const auto rule = make_rule("schedule-free");
  const State state{rule->init(at::ones({3}))};
  EXPECT_THROW(rule->evaluation_params(state, {at::ones({2, 3})}), InputError);
}

TEST(StepOptions, OutOfRangeAreRefusedByEveryRule) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInf = std::numeric_limits<double>::infinity();
  for (const std::string& name : rule_names()) {
    const auto rule = make_rule(name);
    const at::Tensor param = at::ones({2, 2});
    State state = init_state(*rule, {param});
    for (const StepOptions& options :
         {StepOptions{.lr = kNan}, StepOptions{.lr = kInf}, StepOptions{.weight_decay = -0.1},
          StepOptions{.weight_decay = kNan}, StepOptions{.weight_decay = kInf},
          StepOptions{.num_steps = 0}, StepOptions{.momentum = 1.0},
          StepOptions{.momentum = kNan}}) {
      EXPECT_NE(refusal([&] { rule->step_({at::ones({2, 2})}, state, {param}, options); }), "")
          << name;
    }
    EXPECT_TRUE(identical(param, at::ones({2, 2})));
  }
}

TEST(StepOptions, OfAMomentumNeedARuleThatHasOne) {
  for (const std::string& name : rule_names()) {
    const auto rule = make_rule(name);
    std::vector<at::Tensor> params{wave({4, 3}, 0.0), wave({5}, 0.0)};
    std::vector<at::Tensor> other = clones(params);
    State state = init_state(*rule, params), other_state = clone_state(state);
    if (!rule->default_momentum()) {
      const std::vector<at::Tensor> grads{wave({4, 3}, 1.0), wave({5}, 1.0)};
      EXPECT_EQ(refusal([&] { rule->step_(grads, state, params, {.momentum = 0.9}); }),
                "[" + name + "] expected no momentum, which " + name + " does not have, got 0.9");
      continue;
    }
    for (int step = 0; step < 3; ++step) {
      const std::vector<at::Tensor> grads{wave({4, 3}, 1.0 + step), wave({5}, 1.0 + step)};
      const UpdateResult pure = rule->update(grads, state, params, {.lr = 0.1, .momentum = 0.5});
      rule->step_(grads, state, params, {.lr = 0.1, .momentum = 0.5});
      rule->step_(grads, other_state, other, {.lr = 0.1});
      EXPECT_TRUE(close(state[0][1], pure.state[0][1])) << name;
    }
    EXPECT_GT((params[0] - other[0]).abs().max().item<double>(), 1e-6) << name;
    EXPECT_GT((params[1] - other[1]).abs().max().item<double>(), 1e-6) << name;
  }
}

}  // namespace
}  // namespace mnemosyne::optim
