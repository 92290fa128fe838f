#include "mnemosyne/optim/rules.h"

#include <map>

#include "mnemosyne/core/embedded.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/optim/weights.h"
#include "rule_testing.h"
#include "testing.h"

namespace mnemosyne::optim {
namespace {

using mnemosyne::testing::clones;
using mnemosyne::testing::close;
using mnemosyne::testing::identical;
using mnemosyne::testing::kAllShapes;
using mnemosyne::testing::wave;
using mnemosyne::testing::waves;

bool is_lstm(const std::string& name) { return name.rfind("lstm", 0) == 0; }

// The weights of the library where there are some, else fresh ones.
std::shared_ptr<UpdateRule> usable_rule(const std::string& name) {
  const bool trained = !embedded_file(name + ".safetensors").empty();
  return trained ? default_rule(name) : make_rule(name);
}

// A rate with which 300 steps move a coordinate by .1 and no further than that.
double quadratic_lr(const UpdateRule& rule) {
  static const std::map<std::string, double> rates{{"adafactor", 0.02},     {"adam", 0.01},
                                                   {"adamw", 0.01},         {"muon", 0.02},
                                                   {"schedule-free", 0.02}, {"sgd", 0.1}};
  const auto found = rates.find(rule.name());
  return found == rates.end() ? rule.default_lr() : found->second;
}

class EveryRule : public ::testing::TestWithParam<std::string> {
 protected:
  std::shared_ptr<UpdateRule> rule() const { return make_rule(GetParam()); }
};

TEST_P(EveryRule, MinimisesAQuadratic) {
  const auto rule = usable_rule(GetParam());
  if (is_lstm(GetParam()) && embedded_file(GetParam() + ".safetensors").empty()) {
    GTEST_SKIP() << "an LSTM without trained weights optimises nothing";
  }
  const std::vector<at::Tensor> targets = waves({{6, 5}, {8}, {3, 2, 2}}, 0.0);
  std::vector<at::Tensor> params;
  for (const at::Tensor& target : targets)
    params.push_back(target + 0.1 * wave(target.sizes(), 5.0));
  const auto loss = [&](const std::vector<at::Tensor>& points) {
    double sum = 0.0;
    for (size_t i = 0; i < points.size(); ++i) {
      sum += (points[i] - targets[i]).square().sum().item<double>();
    }
    return sum;
  };
  const double before = loss(params);
  State state = init_state(*rule, params);
  for (int step = 0; step < 300; ++step) {
    std::vector<at::Tensor> grads;
    for (size_t i = 0; i < params.size(); ++i) grads.push_back(params[i] - targets[i]);
    rule->step_(grads, state, params, {.lr = quadratic_lr(*rule)});
  }
  const double allowed = rule->weights().empty() ? 0.05 : 0.5;
  EXPECT_LT(loss(rule->evaluation_params(state, params)), allowed * before);
}

TEST_P(EveryRule, KeepsShapesAndDtypes) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
    std::vector<at::Tensor> params = waves(kAllShapes, 0.0, dtype);
    const std::vector<at::Tensor> grads = waves(kAllShapes, 3.0, dtype);
    State state = init_state(*rule(), params);
    const UpdateResult result = rule()->update(grads, state, params, {});
    rule()->step_(grads, state, params, {});
    for (size_t i = 0; i < params.size(); ++i) {
      EXPECT_EQ(result.updates[i].scalar_type(), compute_dtype(params[i]));
      EXPECT_EQ(result.updates[i].sizes(), grads[i].sizes());
      EXPECT_EQ(params[i].scalar_type(), dtype);
      EXPECT_TRUE(at::isfinite(params[i]).all().item<bool>()) << dtype << params[i].sizes();
      EXPECT_EQ(state[i].size(), rule()->state_names().size());
      EXPECT_EQ(step_count(state[i]), 1);
      EXPECT_EQ(step_count(result.state[i]), 1);
      for (size_t k = 0; k < state[i].size(); ++k) {
        EXPECT_EQ(state[i][k].sizes(), result.state[i][k].sizes()) << rule()->state_names()[k];
        EXPECT_EQ(state[i][k].scalar_type(), result.state[i][k].scalar_type());
      }
    }
  }
}

TEST_P(EveryRule, UpdateDoesNotWriteToItsArguments) {
  const std::vector<at::Tensor> params = waves(kAllShapes, 0.0), grads = waves(kAllShapes, 3.0);
  const State state = init_state(*rule(), params);
  const std::vector<at::Tensor> old_params = clones(params), old_grads = clones(grads);
  const State old_state = clone_state(state);
  rule()->update(grads, state, params, {.lr = 0.1, .weight_decay = 0.1});
  for (size_t i = 0; i < params.size(); ++i) {
    EXPECT_TRUE(identical(params[i], old_params[i]));
    EXPECT_TRUE(identical(grads[i], old_grads[i]));
    for (size_t k = 0; k < state[i].size(); ++k) {
      EXPECT_TRUE(identical(state[i][k], old_state[i][k])) << rule()->state_names()[k];
    }
  }
}

TEST_P(EveryRule, StepInPlaceIsTheUpdate) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    const double scale = dtype == at::kDouble ? 1e-10 : 2e-5;
    std::vector<at::Tensor> pure = waves(kAllShapes, 0.0, dtype), in_place = clones(pure);
    State pure_state = init_state(*rule(), pure), state = init_state(*rule(), in_place);
    const StepOptions options{.lr = rule()->default_lr(), .weight_decay = 0.1, .num_steps = 50};
    for (int step = 0; step < 4; ++step) {
      const std::vector<at::Tensor> grads = waves(kAllShapes, 3.0 + step, dtype);
      UpdateResult result = rule()->update(grads, pure_state, pure, options);
      for (size_t i = 0; i < pure.size(); ++i) pure[i] = pure[i] - result.updates[i];
      pure_state = result.state;
      rule()->step_(grads, state, in_place, options);
    }
    for (size_t i = 0; i < pure.size(); ++i) {
      EXPECT_TRUE(close(in_place[i], pure[i], {.rtol = scale, .atol = scale})) << pure[i].sizes();
      for (size_t k = 0; k < state[i].size(); ++k) {
        EXPECT_TRUE(close(state[i][k], pure_state[i][k], {.rtol = scale, .atol = scale}))
            << rule()->state_names()[k] << " of " << pure[i].sizes();
      }
    }
  }
}

TEST_P(EveryRule, StridesDoNotMatter) {
  const std::vector<std::vector<int64_t>> shapes{{6, 5}, {4, 3, 2}};
  std::vector<at::Tensor> dense = waves(shapes, 0.0), strided;
  for (const at::Tensor& param : dense) {
    strided.push_back(at::empty_like(param.transpose(0, 1).contiguous()).transpose(0, 1));
    strided.back().copy_(param);
    ASSERT_FALSE(strided.back().is_contiguous());
  }
  State dense_state = init_state(*rule(), dense), state = init_state(*rule(), strided);
  for (int step = 0; step < 3; ++step) {
    const std::vector<at::Tensor> grads = waves(shapes, 3.0 + step);
    std::vector<at::Tensor> strided_grads;
    for (const at::Tensor& grad : grads) {
      strided_grads.push_back(grad.transpose(0, 1).contiguous().transpose(0, 1));
    }
    rule()->step_(grads, dense_state, dense, {.lr = rule()->default_lr()});
    rule()->step_(strided_grads, state, strided, {.lr = rule()->default_lr()});
  }
  for (size_t i = 0; i < dense.size(); ++i) {
    EXPECT_TRUE(close(strided[i], dense[i], {.rtol = 1e-5, .atol = 1e-5}));
  }
}

TEST_P(EveryRule, StaysFiniteOnExtremeGradients) {
  for (const double size : {0.0, 1e-30, 1e18}) {
    std::vector<at::Tensor> params = waves(kAllShapes, 0.0);
    State state = init_state(*rule(), params);
    for (int step = 0; step < 3; ++step) {
      std::vector<at::Tensor> grads;
      for (const at::Tensor& wave : waves(kAllShapes, 3.0)) grads.push_back(wave * size);
      rule()->step_(grads, state, params, {.lr = rule()->default_lr()});
    }
    for (const at::Tensor& param : params) {
      EXPECT_TRUE(at::isfinite(param).all().item<bool>()) << size << " " << param.sizes();
    }
  }
}

TEST_P(EveryRule, FactorsThatAreTensorsCountLikeNumbers) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    const double scale = dtype == at::kDouble ? 1e-10 : 2e-5, lr = rule()->default_lr();
    std::vector<at::Tensor> params = waves(kAllShapes, 0.0, dtype), other = clones(params);
    State state = init_state(*rule(), params), other_state = init_state(*rule(), other);
    const StepOptions numbers{.lr = 0.3 * lr, .weight_decay = 0.2, .num_steps = 50};
    StepOptions tensors{.lr = lr, .weight_decay = 0.1, .num_steps = 50};
    tensors.lr_factor = at::full({}, 0.3, at::kDouble);
    tensors.weight_decay_factor = at::full({}, 2.0, at::kDouble);
    for (int step = 0; step < 3; ++step) {
      const std::vector<at::Tensor> grads = waves(kAllShapes, 3.0 + step, dtype);
      const UpdateResult result = rule()->update(grads, other_state, other, tensors);
      const UpdateResult expected = rule()->update(grads, state, params, numbers);
      for (size_t i = 0; i < params.size(); ++i) {
        EXPECT_TRUE(close(result.updates[i], expected.updates[i], {.rtol = scale, .atol = scale}));
      }
      rule()->step_(grads, state, params, numbers);
      rule()->step_(grads, other_state, other, tensors);
    }
    for (size_t i = 0; i < params.size(); ++i) {
      EXPECT_TRUE(close(other[i], params[i], {.rtol = scale, .atol = scale})) << params[i].sizes();
    }
  }
}

TEST_P(EveryRule, IsMadeAgainFromItsNameAndOptions) {
  std::shared_ptr<UpdateRule> copy = make_rule(rule()->name(), rule()->options_json());
  if (!rule()->weights().empty()) copy = copy->with_weights(rule()->weights());
  EXPECT_EQ(copy->options_json(), rule()->options_json());
  EXPECT_EQ(weights_hash(*copy), weights_hash(*rule()));
}

TEST_P(EveryRule, NamesAnUnknownOption) {
  try {
    make_rule(GetParam(), R"({"momentun": 0.9})");
    FAIL() << "expected an InputError";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("momentun"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find(GetParam()), std::string::npos) << error.what();
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, EveryRule, ::testing::ValuesIn(rule_names()),
                         mnemosyne::testing::name_of_test);

TEST(Rules, RefuseWhatIsNoOption) {
  EXPECT_THROW(make_rule("sgd", "momentum = 0.9"), InputError);
  EXPECT_THROW(make_rule("sgd", "[0.9]"), InputError);
  EXPECT_THROW(make_rule("sgd", R"({"momentum": "0.9"})"), InputError);
  EXPECT_THROW(make_rule("sgd", R"({"nesterov": 1})"), InputError);
  EXPECT_THROW(make_rule("sgd", R"({"momentum": 1.0})"), InputError);
  EXPECT_THROW(make_rule("sgd", R"({"momentum": 0, "nesterov": true})"), InputError);
  EXPECT_THROW(make_rule("adam", R"({"beta2": -0.1})"), InputError);
  EXPECT_THROW(make_rule("muon", R"({"num_iterations": 2.5})"), InputError);
  EXPECT_THROW(make_rule("lstm", R"({"num_hidden": 1000000000})"), InputError);
  EXPECT_THROW(make_rule("lion"), InputError);
  EXPECT_THROW(make_rule("sgd", std::string(100000, '[')), InputError);
}

TEST(Muon, OrthogonalisesMatricesAndGivesTheRestToAdam) {
  const auto muon = make_rule("muon"), adam = make_rule("adam");
  const std::vector<at::Tensor> params = waves({{6, 4}, {1, 9}, {5}}, 0.0);
  const std::vector<at::Tensor> grads = waves({{6, 4}, {1, 9}, {5}}, 3.0);
  const auto result = muon->update(grads, init_state(*muon, params), params, {.lr = 1.0});
  const auto expected = adam->update(grads, init_state(*adam, params), params, {.lr = 1.0});
  EXPECT_TRUE(identical(result.updates[1], expected.updates[1]));
  EXPECT_TRUE(identical(result.updates[2], expected.updates[2]));
  const at::Tensor singular = at::linalg_svdvals(result.updates[0]) / (0.2 * std::sqrt(6.0));
  EXPECT_GT(singular.min().item<double>(), 0.5);
  EXPECT_LT(singular.max().item<double>(), 1.3);
}

TEST(ScheduleFree, EvaluatesAtTheAverage) {
  const auto rule = make_rule("schedule-free");
  std::vector<at::Tensor> params = waves({{5, 4}}, 0.0);
  State state = init_state(*rule, params);
  EXPECT_TRUE(close(rule->evaluation_params(state, params)[0], params[0]));
  for (int step = 0; step < 3; ++step) {
    rule->step_(waves({{5, 4}}, 3.0 + step), state, params, {.lr = 0.1});
  }
  EXPECT_FALSE(close(rule->evaluation_params(state, params)[0], params[0]));
}

}  // namespace
}  // namespace mnemosyne::optim
