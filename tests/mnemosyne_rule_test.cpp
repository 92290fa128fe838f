#include "mnemosyne/optim/mnemosyne_rule.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "mnemosyne/core/error.h"
#include "mnemosyne/optim/rules.h"
#include "mnemosyne/optim/step_features.h"
#include "mnemosyne/optim/step_outputs.h"
#include "testing.h"

namespace mnemosyne::optim {
namespace {

using testing::close;
using testing::identical;

int64_t num_outputs() { return static_cast<int64_t>(step_output_names().size()); }
int64_t num_features() { return static_cast<int64_t>(step_feature_names().size()); }

// Shapes of 0 to 5 dimensions, one of them longer than a chunk of the fused kernel, one without
// elements.
std::vector<at::Tensor> parameters(at::ScalarType dtype = at::kFloat) {
  at::manual_seed(1);
  std::vector<at::Tensor> params;
  for (const std::vector<int64_t>& shape : std::vector<std::vector<int64_t>>{{},
                                                                             {5},
                                                                             {40, 30},
                                                                             {1, 7},
                                                                             {7, 1},
                                                                             {8, 3, 3, 3},
                                                                             {2, 2, 3, 2, 2},
                                                                             {130, 131},
                                                                             {20000},
                                                                             {0, 3}}) {
    params.push_back(at::randn(shape).mul(0.3).to(dtype));
  }
  return params;
}

std::vector<at::Tensor> gradients(at::TensorList params, int64_t step) {
  at::manual_seed(100 + step);
  std::vector<at::Tensor> grads;
  for (const at::Tensor& p : params) grads.push_back(at::randn(p.sizes()).to(p.scalar_type()));
  return grads;
}

std::shared_ptr<UpdateRule> with_random_controller(double scale,
                                                   at::ScalarType dtype = at::kFloat) {
  at::manual_seed(7);
  const MnemosyneRule rule({.step_bound = 1.2, .mixture_bound = 0.4});
  return rule.with_weights(
      {{"controller", at::randn({num_outputs(), num_features()}).mul(scale).to(dtype)}});
}

void expect_same_run(const UpdateRule& pure, const UpdateRule& fused, const StepOptions& options) {
  std::vector<at::Tensor> a = parameters(), b = parameters();
  State state_a = init_state(pure, a), state_b = init_state(fused, b);
  for (int64_t step = 0; step < 12; ++step) {
    const std::vector<at::Tensor> grads = gradients(a, step);
    const UpdateResult result = pure.update(grads, state_a, a, options);
    for (size_t i = 0; i < a.size(); ++i) a[i] = a[i] - result.updates[i];
    state_a = result.state;
    fused.step_(grads, state_b, b, options);
  }
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(close(b[i], a[i], {.rtol = 1e-4, .atol = 2e-5})) << "parameter " << i;
    EXPECT_EQ(step_count(state_b[i]), 12);
  }
}

TEST(OrthogonalRule, FusedStepEqualsTheReadableOne) {
  const auto rule = make_rule("orthogonal");
  expect_same_run(*rule, *rule, {});
  expect_same_run(*rule, *rule, {.lr = 0.5, .weight_decay = 0.1, .num_steps = 12});
}

TEST(OrthogonalRule, StepsAMatrixByItsPolarFactor) {
  const auto rule = make_rule("orthogonal", R"({"warmup_steps": 0, "boost": 1})");
  const at::Tensor p = at::zeros({6, 10}, at::kDouble);
  at::manual_seed(3);
  const at::Tensor g = at::randn({6, 10}, at::kDouble);
  const UpdateResult result = rule->update({g}, init_state(*rule, {p}), {p}, {});
  const at::Tensor singular = std::get<1>(at::linalg_svd(result.updates[0], false));
  EXPECT_TRUE(close(singular / (1e-2 * 0.2 * std::sqrt(10.0)), at::ones({6}, at::kDouble),
                    {.rtol = 0.2, .atol = 0}));
}

TEST(OrthogonalRule, ScheduleIsCosineOrInverseRoot) {
  const OrthogonalOptions options;
  EXPECT_NEAR(base_step_size(options, {}, 1), 2.5e-3, 1e-12) << "a tenth in the first warm-up step";
  EXPECT_NEAR(base_step_size(options, {}, 85), 1e-2, 1e-12);
  EXPECT_NEAR(base_step_size(options, {}, 10001), 1e-3, 1e-5) << "1 / sqrt(t / 100) in the end";
  EXPECT_NEAR(base_step_size(options, {.num_steps = 2000}, 1001), 0.5e-2, 1e-12);
  const double last = base_step_size(options, {.num_steps = 2000}, 2000);
  EXPECT_GT(last, 0.0);
  EXPECT_LT(last, 1e-8);
  EXPECT_EQ(base_step_size(options, {.num_steps = 2000}, 2001), last) << "beyond the end";
  EXPECT_EQ(base_step_size(options, {.num_steps = 2000}, 10000), last) << "beyond the end";
}

TEST(OrthogonalRule, ShortRunsTakeLargerSteps) {
  const OrthogonalOptions options;
  EXPECT_NEAR(base_step_size(options, {.num_steps = 600}, 301), 0.5e-2, 1e-12);
  EXPECT_NEAR(base_step_size(options, {.num_steps = 150}, 76), 1e-2, 1e-12) << "twice";
  EXPECT_NEAR(base_step_size(options, {.num_steps = 20}, 11), 1.25e-2, 1e-12) << "at most boost";
  EXPECT_NEAR(base_step_size({.boost = 1.0}, {.num_steps = 20}, 11), 0.5e-2, 1e-12);
  EXPECT_NEAR(base_step_size({.boost = 1.0}, {}, 301), 0.5e-2, 1e-12);
  EXPECT_THROW(OrthogonalRule({.boost = 0.5}), InputError);
  EXPECT_THROW(OrthogonalRule({.boost_steps = -1.0}), InputError);
}

TEST(MnemosyneRule, ZeroControllerIsTheBaseRule) {
  expect_same_run(*make_rule("orthogonal"), MnemosyneRule(), {});
  expect_same_run(*make_rule("orthogonal"), MnemosyneRule({.learned = false}), {.num_steps = 12});
}

TEST(MnemosyneRule, FusedStepEqualsTheReadableOne) {
  const auto rule = with_random_controller(0.3);
  expect_same_run(*rule, *rule, {});
  expect_same_run(*rule, *rule, {.lr = 2.0, .weight_decay = 0.05, .num_steps = 12});
}

TEST(MnemosyneRule, CorrectionStaysWithinItsBounds) {
  const auto rule = with_random_controller(50.0);
  const std::vector<at::Tensor> params = parameters(at::kDouble);
  State state = init_state(*rule, params), base_state = init_state(MnemosyneRule(), params);
  for (int64_t step = 0; step < 5; ++step) {
    const std::vector<at::Tensor> grads = gradients(params, step);
    UpdateResult learned = rule->update(grads, state, params, {});
    const double step_size = base_step_size({}, {}, step + 1);
    for (size_t i = 0; i < params.size(); ++i) {
      if (params[i].numel() == 0) continue;
      const double largest = learned.updates[i].abs().max().item<double>() / step_size;
      // exp(1.2) x 7/4 x (|D| + |a| / 2), with |a| at most about 1 / sqrt(1 - b2) and |D| = .2
      // sqrt(max).
      const double rows = static_cast<double>(matrix_rows(params[i]));
      const double longer = rows > 0 ? std::max(rows, params[i].numel() / rows) : 0.0;
      const double bound = 1.75 * std::exp(1.2) * (std::max(0.25 * std::sqrt(longer), 10.0) + 5.0);
      EXPECT_LE(largest, bound) << "parameter " << i;
    }
    state = learned.state;
  }
}

TEST(MnemosyneRule, LossScaleDoesNotMatter) {
  const auto rule = with_random_controller(0.3, at::kDouble);
  for (const double scale : {1e-2, 1e4}) {
    std::vector<at::Tensor> a = parameters(at::kDouble), b = parameters(at::kDouble);
    State state_a = init_state(*rule, a), state_b = init_state(*rule, b);
    for (int64_t step = 0; step < 5; ++step) {
      const std::vector<at::Tensor> grads = gradients(a, step);
      std::vector<at::Tensor> scaled;
      for (const at::Tensor& g : grads) scaled.push_back(g * scale);
      rule->step_(grads, state_a, a, {});
      rule->step_(scaled, state_b, b, {});
    }
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_TRUE(close(b[i], a[i], {.rtol = 1e-3, .atol = 1e-4})) << "parameter " << i;
    }
  }
}

TEST(MnemosyneRule, UpdateIsDifferentiableInTheController) {
  const std::vector<at::Tensor> params = parameters(at::kDouble);
  const auto start = with_random_controller(0.3, at::kDouble);
  const at::Tensor weights = find(start->weights(), "controller");
  std::vector<at::Tensor> directions;
  for (const at::Tensor& p : params) directions.push_back(at::randn(p.sizes(), at::kDouble));
  const auto objective = [&](const at::Tensor& controller) {
    const auto rule = start->with_weights({{"controller", controller}});
    State state = init_state(*rule, params);
    at::Tensor total = at::zeros({}, at::kDouble);
    for (int64_t step = 0; step < 3; ++step) {
      const UpdateResult result = rule->update(gradients(params, step), state, params, {});
      for (size_t i = 0; i < params.size(); ++i) {
        total = total + (result.updates[i] * directions[i]).sum();
      }
      state = result.state;
    }
    return total;
  };
  const at::Tensor leaf = weights.clone().requires_grad_(true);
  objective(leaf).backward();
  const double h = 1e-6;
  for (int64_t output = 0; output < num_outputs(); ++output) {
    for (const int64_t feature : {0, 1, 7}) {
      at::Tensor up = weights.clone(), down = weights.clone();
      up[output][feature] += h;
      down[output][feature] -= h;
      const double numeric = ((objective(up) - objective(down)) / (2 * h)).item<double>();
      EXPECT_NEAR(leaf.grad()[output][feature].item<double>(), numeric,
                  1e-6 + 1e-4 * std::abs(numeric))
          << step_output_names()[output] << " " << feature;
    }
  }
}

TEST(MnemosyneRule, MixtureBoundLimitsWhatAdamsDirectionGets) {
  // Only the mixture's bias is on, at its limit: update = s (D + bound (r a - D)).
  at::Tensor controller = at::zeros({num_outputs(), num_features()}, at::kDouble);
  controller[2][0] = 100.0;
  const std::vector<at::Tensor> params = {at::zeros({6, 10}, at::kDouble)};
  const std::vector<at::Tensor> grads = gradients(params, 0);
  const auto update = [&](double bound) {
    const auto rule =
        MnemosyneRule({.mixture_bound = bound}).with_weights({{"controller", controller}});
    return rule->update(grads, init_state(*rule, params), params, {}).updates[0];
  };
  const at::Tensor base = update(0.0), adam = update(1.0);
  EXPECT_TRUE(close(adam / base_step_size({}, {}, 1), ops::kDirectionRms * grads[0].sign(),
                    {.rtol = 1e-5, .atol = 0}));
  EXPECT_TRUE(close(update(0.25), 0.75 * base + 0.25 * adam, {.rtol = 1e-9, .atol = 1e-12}));
}

int64_t output(const std::string& name) {
  const auto& names = step_output_names();
  return std::find(names.begin(), names.end(), name) - names.begin();
}

TEST(MnemosyneRule, DecayIsInUnitsOfTheStepAndNeverGrowth) {
  const std::vector<at::Tensor> params = parameters(at::kDouble);
  const std::vector<at::Tensor> grads = gradients(params, 0);
  const auto updates = [&](double bias) {
    at::Tensor controller = at::zeros({num_outputs(), num_features()}, at::kDouble);
    controller[output("decay")][0] = bias;
    const auto rule = MnemosyneRule().with_weights({{"controller", controller}});
    return rule->update(grads, init_state(*rule, params), params, {}).updates;
  };
  const std::vector<at::Tensor> base = updates(0.0), growth = updates(-0.4), decay = updates(0.4);
  const double size = base_step_size({}, {}, 1);
  for (size_t i = 0; i < params.size(); ++i) {
    EXPECT_TRUE(identical(growth[i], base[i]));
    EXPECT_TRUE(close(decay[i], base[i] + size * std::tanh(0.4) * params[i], {1e-12, 1e-14}));
  }
}

TEST(MnemosyneRule, RefusesBoundsOutOfRange) {
  for (const double bound : {-0.1, 3.5, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_THROW(MnemosyneRule({.step_bound = bound}), InputError) << bound;
    EXPECT_THROW(MnemosyneRule({.mixture_bound = bound}), InputError) << bound;
  }
}

TEST(MnemosyneRule, RefusesWeightsOfAnotherShape) {
  try {
    MnemosyneRule().with_weights({{"controller", at::zeros({3, 3})}});
    ADD_FAILURE() << "expected an InputError";
  } catch (const InputError& error) {
    EXPECT_EQ(std::string(error.what()), "[mnemosyne] expected controller of shape [" +
                                             std::to_string(num_outputs()) + ", " +
                                             std::to_string(num_features()) + "], got [3, 3]");
  }
  EXPECT_THROW(MnemosyneRule().with_weights({{"other", at::zeros({3, 3})}}), InputError);
}

}  // namespace
}  // namespace mnemosyne::optim
