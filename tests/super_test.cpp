#include "mnemosyne/optim/super.h"

#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <functional>

#include "mnemosyne/core/error.h"
#include "mnemosyne/optim/rules.h"
#include "mnemosyne/optim/weights.h"
#include "rule_testing.h"
#include "testing.h"

/// Super-Mnemosyne: tensor-wise for large tensors, a gated sum with coordinate-wise for small ones.
namespace mnemosyne::optim {
namespace {

using testing::clones;
using testing::close;
using testing::identical;
using testing::waves;

using Tensors = std::vector<at::Tensor>;

constexpr int64_t kSmallSize = 40;
const std::vector<std::vector<int64_t>> kShapes{{},       {5},          {8, 5}, {41},
                                                {20, 15}, {4, 3, 3, 3}, {0, 3}};

bool is_small(size_t i) { return i < 3 || i == 6; }

SuperOptions options() {
  return {.tensor = {.network = {.chunk_lengths = {4, 3}, .hidden = 6}},
          .small_size = kSmallSize,
          .coordinate_heads = 3,
          .coordinate_features = 2,
          .coordinate_hidden = 4};
}

/// Heads and decoders that say something; the gate's constant, which decides where it is large.
std::shared_ptr<UpdateRule> with_random_weights(double gate, uint64_t seed = 7) {
  at::manual_seed(seed);
  const SuperRule rule(options());
  NamedTensors weights = rule.weights();
  for (auto& [name, weight] : weights) {
    if (name == "gate") {
      weight = at::tensor({gate, 0.3, -0.2, 0.4, 0.1}, at::kFloat);
    } else if (name.starts_with("tensor.head.") || name.starts_with("coordinate.decoder.output") ||
               name == "coordinate.step.tensor_weight") {
      weight = 0.5 * at::randn(weight.sizes());
    }
  }
  return rule.with_weights(weights);
}

NamedTensors part(const UpdateRule& rule, const std::string& prefix) {
  NamedTensors own;
  for (const auto& [name, weight] : rule.weights()) {
    if (name.starts_with(prefix)) own.emplace_back(name.substr(prefix.size()), weight);
  }
  return own;
}

Tensors gradients(int64_t step, at::ScalarType dtype = at::kFloat) {
  return waves(kShapes, 1.7 * static_cast<double>(step) + 1.0, dtype);
}

/// Updates of three steps from the same start, those of a step one after the other.
Tensors updates(const UpdateRule& rule, const StepOptions& step_options = {}) {
  const Tensors params = waves(kShapes, 0.3);
  State state = init_state(rule, params);
  Tensors all;
  for (int64_t step = 0; step < 3; ++step) {
    UpdateResult result = rule.update(gradients(step), state, params, step_options);
    all.insert(all.end(), result.updates.begin(), result.updates.end());
    state = std::move(result.state);
  }
  return all;
}

TEST(SuperRule, AClosedGateIsTheTensorwiseRule) {
  const auto rule = with_random_weights(-1e6);
  const auto tensorwise = TensorwiseRule(options().tensor).with_weights(part(*rule, "tensor."));
  const Tensors own = updates(*rule), expected = updates(*tensorwise);
  for (size_t i = 0; i < own.size(); ++i) {
    EXPECT_TRUE(identical(own[i], expected[i])) << i;
  }
}

TEST(SuperRule, AnOpenGateIsTheCoordinatewiseRuleForSmallTensorsAlone) {
  const auto rule = with_random_weights(1e6);
  const auto tensorwise = TensorwiseRule(options().tensor).with_weights(part(*rule, "tensor."));
  const CoordinateRule fresh({.num_features = 2,
                              .key_dim = 2,
                              .hidden = 4,
                              .direction_bound = 0.5,
                              .magnitude_bound = 0.7,
                              .step_bound = 0.7,
                              .scale_free = false});
  NamedTensors weights = part(*rule, "coordinate.");
  weights.emplace_back("step.log_rate", at::zeros({}));
  const auto coordinate = fresh.with_weights(weights);
  const StepOptions known{.num_steps = 9};
  const Tensors own = updates(*rule, known), large = updates(*tensorwise, known);
  const Tensors small = updates(*coordinate, known), start = waves(kShapes, 0.3);
  for (size_t k = 0; k < own.size(); ++k) {
    const size_t i = k % kShapes.size();
    if (!is_small(i)) {
      EXPECT_TRUE(identical(own[k], large[k])) << "parameter " << i;
      continue;
    }
    const auto t = static_cast<int64_t>(k / kShapes.size()) + 1;
    const double unit = matrix_rows(start[i]) > 0 ? ops::kDirectionRms : 1.0;
    EXPECT_TRUE(close(own[k], base_step_size({}, known, t) * unit * small[k])) << i;
  }
}

TEST(SuperRule, BetweenTheEndsIsTheirSum) {
  const auto closed = updates(*with_random_weights(-1e6)),
             open = updates(*with_random_weights(1e6));
  const auto rule = with_random_weights(0.5);
  const Tensors own = updates(*rule), start = waves(kShapes, 0.3);
  for (size_t k = 0; k < own.size(); ++k) {
    const size_t i = k % kShapes.size();
    const auto t = static_cast<double>(k / kShapes.size() + 1);
    const double size = static_cast<double>(std::max<int64_t>(start[i].numel(), 1));
    const double y = 0.5 + (matrix_rows(start[i]) > 0 ? 0.3 : 0.0) - 0.2 * std::log10(size) / 6 +
                     0.4 * std::log10(t) / 5;
    const double gate = is_small(i) ? 1 / (1 + std::exp(-y)) : 0.0;
    EXPECT_TRUE(close(own[k], gate * open[k] + (1 - gate) * closed[k])) << i;
  }
}

TEST(SuperRule, UntrainedItBeginsWithTheBaseRuleOnVectors) {
  const Tensors own = updates(SuperRule(options()), {.lr = 2.0, .weight_decay = 0.1});
  const Tensors base = updates(*make_rule("orthogonal"), {.lr = 2.0, .weight_decay = 0.1});
  const Tensors start = waves(kShapes, 0.3);
  for (size_t k = 0; k < own.size(); ++k) {
    const size_t i = k % kShapes.size();
    if (!is_small(i)) {
      EXPECT_TRUE(identical(own[k], base[k])) << i;
    } else if (k < kShapes.size() && matrix_rows(start[i]) == 0) {
      EXPECT_TRUE(close(own[k], base[k], {.rtol = 1e-4, .atol = 1e-7})) << i;
    } else if (matrix_rows(start[i]) > 0) {
      EXPECT_FALSE(close(own[k], base[k], {.rtol = 1e-2, .atol = 0})) << "an eighth is Adam's";
    }
  }
}

TEST(SuperRule, ThatHasNotLearnedIsTheBaseRule) {
  const auto off = with_options(*with_random_weights(0.5), R"({"learned": false})");
  EXPECT_TRUE(off->weights().empty());
  EXPECT_EQ(off->state_names(), make_rule("orthogonal")->state_names());
  const Tensors own = updates(*off), base = updates(*make_rule("orthogonal"));
  for (size_t k = 0; k < own.size(); ++k) EXPECT_TRUE(identical(own[k], base[k])) << k;
}

TEST(SuperRule, StepInPlaceIsTheUpdate) {
  const auto rule = with_random_weights(0.5);
  Tensors a = waves(kShapes, 0.3), b = clones(a);
  State state_a = init_state(*rule, a), state_b = init_state(*rule, b);
  const StepOptions step_options{.weight_decay = 0.1, .num_steps = 8};
  for (int64_t step = 0; step < 8; ++step) {
    UpdateResult result = rule->update(gradients(step), state_a, a, step_options);
    for (size_t i = 0; i < a.size(); ++i) a[i] = a[i] - result.updates[i];
    state_a = std::move(result.state);
    rule->step_(gradients(step), state_b, b, step_options);
  }
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(close(b[i], a[i], {.rtol = 1e-3, .atol = 1e-4})) << i;
    for (size_t k = 0; k < state_a[i].size(); ++k) {
      EXPECT_TRUE(close(state_b[i][k], state_a[i][k], {.rtol = 1e-3, .atol = 1e-4})) << i << k;
    }
  }
}

TEST(SuperRule, EveryWeightHasTheGradientOfAWindow) {
  const auto rule = with_random_weights(0.2);
  NamedTensors weights = rule->weights();
  for (auto& [name, weight] : weights) weight = weight.to(at::kDouble);
  const Tensors params = waves(kShapes, 0.2, at::kDouble);
  const auto value = [&](const at::Tensor& theta) {
    const auto learned = rule->with_weights(unflatten(theta, weights));
    State state = init_state(*learned, params);
    at::Tensor sum = at::zeros({}, at::kDouble);
    for (int64_t step = 0; step < 3; ++step) {
      UpdateResult result = learned->update(gradients(step, at::kDouble), state, params,
                                            {.lr = 100.0, .num_steps = 5});
      const Tensors cotangents = waves(kShapes, 5.0 + static_cast<double>(step), at::kDouble);
      for (size_t i = 0; i < params.size(); ++i) {
        sum = sum + (result.updates[i] * cotangents[i]).sum();
      }
      state = std::move(result.state);
    }
    return sum;
  };
  const at::Tensor theta = flatten(weights).detach().requires_grad_(true);
  const at::Tensor gradient = torch::autograd::grad({value(theta)}, {theta})[0];
  int64_t first = 0;
  for (const auto& [name, weight] : weights) {
    EXPECT_GT(gradient.narrow(0, first, weight.numel()).abs().max().item<double>(), 0.0) << name;
    at::manual_seed(first);
    const at::Tensor direction = at::zeros_like(theta);
    direction.narrow(0, first, weight.numel()).copy_(at::randn({weight.numel()}, at::kDouble));
    const at::NoGradGuard no_grad;
    constexpr double kStep = 1e-5;
    const double expected =
        (value(theta + kStep * direction) - value(theta - kStep * direction)).item<double>() /
        (2.0 * kStep);
    EXPECT_NEAR((gradient * direction).sum().item<double>(), expected,
                1e-5 * std::abs(expected) + 1e-6)
        << name;
    first += weight.numel();
  }
}

TEST(SuperRule, OnlySmallTensorsRememberEveryCoordinate) {
  const SuperRule rule;
  const auto memory = [&](at::IntArrayRef shape) {
    const StateLayout layout = rule.state_layout(at::zeros(shape));
    EXPECT_EQ(layout.back().name, "coordinate_memory");
    return c10::multiply_integers(layout.back().shape);
  };
  EXPECT_EQ(memory({32, 32}), 1024 * 36) << "144 bytes a parameter";
  EXPECT_EQ(memory({1025}), 0);
  EXPECT_EQ(memory({0, 3}), 0);
  const TensorwiseRule tensorwise;
  const StateLayout own = rule.state_layout(at::zeros({40, 40}));
  const StateLayout others = tensorwise.state_layout(at::zeros({40, 40}));
  for (size_t k = 0; k < others.size(); ++k) EXPECT_EQ(own[k].shape, others[k].shape);
  const SuperRule none({.small_size = 0});
  EXPECT_EQ(none.state_layout(at::zeros({1})).back().shape[0], 0);
}

TEST(SuperRule, AWeightsFileGivesItBack) {
  const auto rule = with_random_weights(0.5);
  const std::string path = testing::temporary_path("super.safetensors");
  save_rule(path, *rule);
  const auto loaded = load_rule(path);
  EXPECT_EQ(weights_hash(*loaded), weights_hash(*rule));
  const Tensors own = updates(*loaded), expected = updates(*rule);
  for (size_t k = 0; k < own.size(); ++k) EXPECT_TRUE(identical(own[k], expected[k])) << k;
  for (const auto& [name, lists] : rule->weight_axes()) {
    const at::Tensor weight = find(rule->weights(), name);
    for (size_t axis = 0; axis < lists.size(); ++axis) {
      if (lists[axis].empty()) continue;
      EXPECT_EQ(static_cast<int64_t>(lists[axis].size()), weight.size(static_cast<int64_t>(axis)));
    }
  }
}

TEST(SuperRule, RefusesWhatItCannotUse) {
  const auto refused = [](const std::string& option, const std::string& expected) {
    try {
      make_rule("mnemosyne-super", option);
      ADD_FAILURE() << option;
    } catch (const InputError& error) {
      EXPECT_NE(std::string(error.what()).find(expected), std::string::npos) << error.what();
    }
  };
  refused(R"({"small_size": -1})", "[mnemosyne-super] expected small_size of at least 0, got -1");
  refused(R"({"coordinate_heads": 0})", "expected `num_heads` from 1 to 64, got 0");
  refused(R"({"coordinate_step_bound": 50})", "expected bounds from 0 to 20, got 50");
  refused(R"({"direction_bound": 3})", "expected direction_bound in [0, 2], got 3");
  refused(R"({"smallest": 3})", "smallest");
  const auto rule = make_rule("mnemosyne-super");
  NamedTensors weights = rule->weights();
  weights.erase(weights.begin());
  EXPECT_THROW(rule->with_weights(weights), InputError);
}

}  // namespace
}  // namespace mnemosyne::optim
