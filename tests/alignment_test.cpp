// What gradients say of the update of the step before, in the default rule.
#include <algorithm>
#include <cmath>
#include <limits>

#include "mnemosyne/optim/chunk_tokens.h"
#include "mnemosyne/optim/mnemosyne_rule.h"
#include "mnemosyne/optim/population.h"
#include "mnemosyne/optim/rules.h"
#include "mnemosyne/optim/step_features.h"
#include "mnemosyne/optim/step_outputs.h"
#include "mnemosyne/optim/weights.h"
#include "rule_testing.h"
#include "testing.h"

namespace mnemosyne::optim {
namespace {

using testing::clones;
using testing::close;
using testing::identical;
using testing::waves;

const std::vector<std::vector<int64_t>> kShapes{{},           {5},   {40, 30}, {1, 7},
                                                {8, 3, 3, 3}, {700}, {0, 3}};
const char kOn[] = R"({"alignment": true})";
const char kWithAttention[] =
    R"({"alignment": true, "attention": true, "attention_chunk_size": 64,
        "attention_chunk_length": 4, "step_bound": 0.7})";

/// Weights that say something of everything that is seen.
std::shared_ptr<UpdateRule> learned(const std::string& options, uint64_t seed = 7) {
  const auto rule = make_rule("mnemosyne", options);
  NamedTensors weights = rule->weights();
  at::manual_seed(seed);
  for (auto& [name, weight] : weights) {
    const bool head = name == "controller" || name.find("_head.weight") != std::string::npos;
    if (head) weight = 0.3 * at::randn(weight.sizes());
  }
  return rule->with_weights(weights);
}

struct Training {
  std::vector<at::Tensor> params;
  State state;
};

Training start(const UpdateRule& rule, at::ScalarType dtype = at::kFloat) {
  std::vector<at::Tensor> params = waves(kShapes, 0.3, dtype);
  State state = init_state(rule, params);
  return {std::move(params), std::move(state)};
}

std::vector<at::Tensor> gradients(int64_t step, at::ScalarType dtype = at::kFloat) {
  return waves(kShapes, 1.7 * static_cast<double>(step) + 1.0, dtype);
}

/// In place, from one step to another.
void step(const UpdateRule& rule, Training& run, int64_t first, int64_t last,
          const StepOptions& options = {}) {
  for (int64_t s = first; s < last; ++s) {
    rule.step_(gradients(s, run.params[0].scalar_type()), run.state, run.params, options);
  }
}

void expect_identical(const Training& a, const Training& b) {
  for (size_t i = 0; i < a.params.size(); ++i) {
    EXPECT_TRUE(identical(a.params[i], b.params[i])) << i;
    for (size_t k = 0; k < a.state[i].size(); ++k) {
      EXPECT_TRUE(identical(a.state[i][k], b.state[i][k])) << i << " " << k;
    }
  }
}

double feature(const at::Tensor& features, const std::string& name, int64_t tensor = 0) {
  const auto& names = step_feature_names(true);
  const auto place = std::find(names.begin(), names.end(), name) - names.begin();
  return features[tensor][place].item<double>();
}

TEST(Alignment, HasTwoBytesAParameterBesideWhatThereWas) {
  const at::Tensor p = at::zeros({40, 30}, at::kDouble);
  const StateLayout without = make_rule("mnemosyne")->state_layout(p);
  for (const char* options : {kOn, kWithAttention}) {
    const StateLayout layout = make_rule("mnemosyne", options)->state_layout(p);
    EXPECT_EQ(layout.back().name, "previous_update");
    EXPECT_EQ(layout.back().dtype, at::kBFloat16);
    EXPECT_TRUE(layout.back().like_param);
    EXPECT_EQ(layout.size(), without.size() + (options == kOn ? 1 : 2));
    EXPECT_EQ(layout[3].shape[0], num_signals(true));
    EXPECT_EQ(without[3].shape[0], num_signals(false));
  }
  const auto base = make_rule("mnemosyne", R"({"alignment": true, "learned": false})");
  EXPECT_EQ(base->state_layout(p).size(), make_rule("orthogonal")->state_layout(p).size());
  EXPECT_EQ(make_rule("mnemosyne", kOn)->elementwise()->state_layout(p).size(), 3u);
}

TEST(Alignment, OffLeavesRulesWhatTheyWere) {
  EXPECT_EQ(MnemosyneRule().options_json().find("alignment"), std::string::npos);
  EXPECT_NE(make_rule("mnemosyne", kOn)->options_json().find("\"alignment\": true"),
            std::string::npos);
  const auto off = make_rule("mnemosyne", R"({"alignment": false})");
  EXPECT_EQ(weights_hash(*off), weights_hash(*make_rule("mnemosyne")));
  EXPECT_NE(weights_hash(*make_rule("mnemosyne", kOn)), weights_hash(*off));
  EXPECT_FALSE(make_rule("mnemosyne", kOn)->steps_with(*off));
}

TEST(Alignment, FusedStepEqualsTheReadableOne) {
  for (const char* options : {kOn, kWithAttention}) {
    const auto rule = learned(options);
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
      Training pure = start(*rule, dtype), fused = start(*rule, dtype);
      const StepOptions given{.weight_decay = 0.1, .num_steps = 8};
      for (int64_t s = 0; s < 8; ++s) {
        UpdateResult result = rule->update(gradients(s, dtype), pure.state, pure.params, given);
        for (size_t i = 0; i < pure.params.size(); ++i) {
          pure.params[i] = pure.params[i] - result.updates[i];
        }
        pure.state = std::move(result.state);
      }
      step(*rule, fused, 0, 8, given);
      for (size_t i = 0; i < pure.params.size(); ++i) {
        EXPECT_TRUE(close(fused.params[i], pure.params[i], {.rtol = 1e-3, .atol = 1e-4})) << i;
        EXPECT_TRUE(
            close(fused.state[i].back(), pure.state[i].back(), {.rtol = 0.02, .atol = 1e-5}))
            << i;
        EXPECT_TRUE(close(fused.state[i][3], pure.state[i][3], {.rtol = 2e-3, .atol = 1e-3})) << i;
      }
    }
  }
}

TEST(Alignment, ColumnsOfZerosChangeNothing) {
  for (const char* options : {"{}", R"({"attention": true, "attention_chunk_size": 64})"}) {
    const auto before = learned(options);
    const auto grown = with_options(*before, kOn);
    for (const auto& [name, weight] : before->weights()) {
      const at::Tensor own = find(grown->weights(), name);
      const bool same_axes = before->weight_axes()[name] == grown->weight_axes()[name];
      EXPECT_EQ(identical(own, weight), same_axes) << name;
    }
    Training a = start(*before), b = start(*grown);
    step(*before, a, 0, 8, {.num_steps = 8});
    step(*grown, b, 0, 8, {.num_steps = 8});
    for (size_t i = 0; i < a.params.size(); ++i) {
      EXPECT_TRUE(close(b.params[i], a.params[i], {.rtol = 1e-6, .atol = 1e-7})) << i;
    }
    const auto back = with_options(*grown, R"({"alignment": false})");
    EXPECT_EQ(weights_hash(*back), weights_hash(*before));
    // What has been learned of it is left behind with it.
    const auto trained = learned(grown->options_json(), 9);
    const auto stripped = with_options(*trained, R"({"alignment": false})");
    EXPECT_EQ(find(stripped->weights(), "controller").sizes(),
              find(before->weights(), "controller").sizes());
  }
}

TEST(Alignment, AWeightsFileGivesTheRuleBack) {
  const auto rule = learned(kWithAttention);
  const std::string path = testing::temporary_path("alignment.safetensors");
  save_rule(path, *rule);
  const auto loaded = load_rule(path);
  EXPECT_EQ(loaded->options_json(), rule->options_json());
  EXPECT_EQ(weights_hash(*loaded), weights_hash(*rule));
}

TEST(Alignment, IsOfWhatTheStepBeforeTookOff) {
  const auto rule = make_rule("mnemosyne", kOn);
  Training run = start(*rule);
  step(*rule, run, 0, 3);
  const std::vector<at::Tensor> before = clones(run.params);
  // Weight decay is none of it.
  const std::vector<double> sizes = rule->step_sizes(run.state, run.params, {});
  step(*rule, run, 3, 4, {.weight_decay = 0.5});
  for (size_t i = 0; i < before.size(); ++i) {
    const at::Tensor taken = before[i] - run.params[i] - 0.5 * sizes[i] * before[i];
    EXPECT_TRUE(close(run.state[i].back(), taken, {.rtol = 0.005, .atol = 1e-6})) << i;
  }
}

/// Features of the last of some steps on a loss of which `gradient` is the gradient.
template <typename Gradient>
at::Tensor features_after(int64_t num_steps, double size, const StepOptions& given,
                          const Gradient& gradient) {
  const auto rule = make_rule("mnemosyne", kOn);
  std::vector<at::Tensor> params = waves({{20, 30}, {50}}, 0.3, at::kDouble);
  for (at::Tensor& p : params) p = size * p;
  State state = init_state(*rule, params);
  Decisions decisions;
  StepOptions options = given;
  options.decisions = &decisions;
  for (int64_t s = 0; s < num_steps; ++s) {
    std::vector<at::Tensor> grads;
    for (const at::Tensor& p : params) grads.push_back(gradient(p));
    UpdateResult result = rule->update(grads, state, params, options);
    for (size_t i = 0; i < params.size(); ++i) params[i] = params[i] - result.updates[i];
    state = std::move(result.state);
  }
  return decisions.features;
}

TEST(Alignment, TellsStepsThatAreTooSmallFromThoseThatAreTooLarge) {
  const auto quadratic = [](const at::Tensor& p) { return 3.0 * p; };
  // Far from the optimum beside the step, and a step that jumps across it again and again.
  const at::Tensor small = features_after(60, 1.0, {.lr = 1e-2}, quadratic);
  const at::Tensor large = features_after(60, 1e-4, {.lr = 1.0}, quadratic);
  for (const int64_t tensor : {0, 1}) {
    for (const char* name : {"alignment_fast", "alignment_slow", "mean_alignment_fast"}) {
      // Every gradient says what the momentum says: rho = 1.
      EXPECT_NEAR(feature(small, name, tensor), std::tanh(0.5), 0.02) << name;
      EXPECT_LT(feature(large, name, tensor), -0.05) << name;
    }
    EXPECT_GT(feature(small, "alignment_radial", tensor), 0.99);
  }
}

TEST(Alignment, SeesThatAGradientHasNoRadialPart) {
  const at::Tensor target = testing::wave({20, 30}, 5.0, at::kDouble);
  // Of a loss that does not depend on the norm of p, as before a normalisation.
  const auto spherical = [&](const at::Tensor& p) {
    const at::Tensor g = target.reshape(-1).narrow(0, 0, p.numel()).view(p.sizes());
    return g - (g * p).sum() / p.square().sum() * p;
  };
  const at::Tensor features = features_after(40, 1.0, {}, spherical);
  for (const int64_t tensor : {0, 1}) {
    EXPECT_LT(feature(features, "alignment_radial", tensor), 1e-6);
  }
  EXPECT_LT(feature(features, "mean_alignment_radial"), 1e-6);
}

TEST(Alignment, ChunksHaveAColumnOfTheirOwn) {
  EXPECT_EQ(chunk_feature_names(true).back(), "alignment");
  EXPECT_EQ(chunk_feature_names(true).size(), chunk_feature_names(false).size() + 1);
  const ChunkGeometry geometry(waves({{10}, {4}}, 0.1), 6);
  const at::Tensor grads = at::tensor({3., 4., 0., 0., 0., 0., 1., 1., 1., 1., 2., 0., 0., 0.});
  const at::Tensor updates =
      at::tensor({.3, .4, 0., 0., 0., 0., -.1, -.1, -.1, -.1, 0., .2, .5, 0.});
  const auto sums = [](const at::Tensor& x) {
    return at::stack({x.narrow(0, 0, 6).sum(), x.narrow(0, 6, 4).sum(), x.narrow(0, 10, 4).sum()})
        .to(at::kDouble);
  };
  ops::StepSums chunks;
  for (const auto member : ops::kStepSums) chunks.*member = at::ones({3}, at::kDouble);
  chunks.grad_squared = sums(grads.square());
  chunks.update_squared = sums(updates.square());
  chunks.grad_dot_update = sums(grads * updates);
  const ops::StepSums tensors = sums_of_tensors(chunks, geometry);
  EXPECT_NEAR(tensors.grad_dot_update[0].item<double>(), 2.5 - 0.4, 1e-6);
  const at::Tensor column = chunk_features(chunks, tensors, geometry).select(1, -1);
  EXPECT_TRUE(close(column, at::tensor({1.0, -1.0, 0.0})));
  chunks.update_squared.zero_();
  EXPECT_TRUE(close(chunk_features(chunks, tensors, geometry).select(1, -1), at::zeros({3})));
}

TEST(Alignment, AGradientThatIsNotFiniteLeavesASoundState) {
  for (const char* options : {kOn, kWithAttention}) {
    const auto rule = learned(options);
    for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity(), 3e38}) {
      Training run = start(*rule);
      step(*rule, run, 0, 3);
      std::vector<at::Tensor> grads = gradients(3);
      grads[2][3][4] = bad;
      grads[5].fill_(bad);
      rule->step_(grads, run.state, run.params, {});
      for (int64_t s = 4; s < 7; ++s) step(*rule, run, s, s + 1);
      for (size_t i = 0; i < run.params.size(); ++i) {
        EXPECT_TRUE(run.params[i].isfinite().all().item<bool>()) << bad;
        EXPECT_TRUE(run.state[i].back().isfinite().all().item<bool>()) << bad;
        EXPECT_TRUE(run.state[i][3].isfinite().all().item<bool>()) << bad;
      }
    }
  }
}

TEST(Alignment, ARunResumesBitForBit) {
  for (const char* options : {kOn, kWithAttention}) {
    const auto rule = learned(options);
    Training whole = start(*rule), forgetful = start(*rule);
    step(*rule, whole, 0, 5);
    step(*rule, forgetful, 0, 5);
    Training resumed{clones(whole.params), clone_state(whole.state)};
    for (ParamState& own : forgetful.state) own.back().zero_();
    step(*rule, whole, 5, 9);
    step(*rule, resumed, 5, 9);
    step(*rule, forgetful, 5, 9);
    expect_identical(resumed, whole);
    EXPECT_FALSE(identical(forgetful.params[2], whole.params[2])) << "u is part of the state";
  }
}

TEST(Alignment, MembersOfAPopulationStepAsTheyWouldAlone) {
  const std::vector<std::vector<int64_t>> shapes{{3, 7}, {3, 5, 4}, {3, 40, 33}};
  Population::Rules rules;
  for (uint64_t m = 0; m < 3; ++m) rules.push_back(learned(kOn, m));
  std::vector<at::Tensor> together = waves(shapes, 0.2);
  const std::vector<at::Tensor> alone = clones(together);
  const auto member = [](const std::vector<at::Tensor>& stacked, int64_t m) {
    std::vector<at::Tensor> views;
    for (const at::Tensor& tensor : stacked) views.push_back(tensor.select(0, m));
    return views;
  };
  Population population(rules, together);
  std::vector<State> states;
  for (int64_t m = 0; m < 3; ++m) states.push_back(init_state(*rules[m], member(alone, m)));
  for (int64_t s = 0; s < 5; ++s) {
    const std::vector<at::Tensor> grads = waves(shapes, 3.0 + static_cast<double>(s));
    population.step_(grads, std::vector<StepOptions>(3), {1, 1, 1});
    for (int64_t m = 0; m < 3; ++m) {
      rules[m]->step_(member(grads, m), states[m], member(alone, m), {});
    }
  }
  for (int64_t m = 0; m < 3; ++m) {
    expect_identical({member(together, m), population.state(m)}, {member(alone, m), states[m]});
  }
}

TEST(Alignment, AFactorThatIsATensorCountsLikeANumber) {
  const auto rule = learned(kOn);
  Training numbers = start(*rule, at::kDouble), pure = start(*rule, at::kDouble), fused = pure;
  fused = {clones(pure.params), clone_state(pure.state)};
  StepOptions tensors{.lr = 2.0, .weight_decay = 0.1};
  tensors.lr_factor = at::full({}, 0.25, at::kDouble);
  tensors.weight_decay_factor = at::full({}, 3.0, at::kDouble);
  step(*rule, numbers, 0, 4, {.lr = 0.5, .weight_decay = 0.3});
  step(*rule, fused, 0, 4, tensors);
  for (int64_t s = 0; s < 4; ++s) {
    UpdateResult result = rule->update(gradients(s, at::kDouble), pure.state, pure.params, tensors);
    for (size_t i = 0; i < pure.params.size(); ++i) {
      pure.params[i] = pure.params[i] - result.updates[i];
    }
    pure.state = std::move(result.state);
  }
  for (size_t i = 0; i < numbers.params.size(); ++i) {
    for (const Training* run : {&pure, &fused}) {
      EXPECT_TRUE(close(run->params[i], numbers.params[i], {.rtol = 1e-6, .atol = 1e-8})) << i;
      EXPECT_TRUE(
          close(run->state[i].back(), numbers.state[i].back(), {.rtol = 0.008, .atol = 1e-9}))
          << i;
    }
  }
}

TEST(Alignment, ItsWeightsHaveTheGradientOfAWindow) {
  // u of the step before is a constant, as gradients are: each step's update by its own weights.
  const auto rule = learned(kOn);
  NamedTensors weights = rule->weights();
  const at::Tensor leaf = weights[0].second.to(at::kDouble).requires_grad_(true);
  const auto function = [&](const at::Tensor& controller, State& state) {
    const auto own = rule->with_weights({{"controller", controller}});
    const std::vector<at::Tensor> params = waves(kShapes, 0.3, at::kDouble);
    UpdateResult result = own->update(gradients(9, at::kDouble), state, params, {.lr = 100.0});
    at::Tensor sum = at::zeros({}, at::kDouble);
    for (size_t i = 0; i < params.size(); ++i) {
      sum = sum + (result.updates[i] * testing::wave(params[i].sizes(), 2.0, at::kDouble)).sum();
      EXPECT_FALSE(result.state[i].back().requires_grad());
    }
    return sum;
  };
  Training run = start(*rule, at::kDouble);
  step(*rule, run, 0, 3);
  function(leaf, run.state).backward();
  const at::NoGradGuard no_grad;
  const auto& names = step_feature_names(true);
  for (size_t column = 0; column < names.size(); ++column) {
    if (names[column].find("alignment") == std::string::npos) continue;
    const auto f = static_cast<int64_t>(column);
    for (int64_t k = 1; k < leaf.size(0); ++k) {
      const auto value = [&](double h) {
        const at::Tensor moved = leaf.detach().clone();
        moved[k][f] += h;
        return function(moved, run.state).item<double>();
      };
      const double expected = (value(1e-5) - value(-1e-5)) / 2e-5;
      EXPECT_NEAR(leaf.grad()[k][f].item<double>(), expected,
                  1e-5 * std::max(1.0, std::abs(expected)))
          << names[column] << " " << step_output_names()[static_cast<size_t>(k)];
    }
  }
}

}  // namespace
}  // namespace mnemosyne::optim
