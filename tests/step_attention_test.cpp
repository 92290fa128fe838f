#include "mnemosyne/optim/step_attention.h"

#include <cmath>
#include <limits>

#include "mnemosyne/core/error.h"
#include "mnemosyne/optim/mnemosyne.h"
#include "mnemosyne/optim/mnemosyne_rule.h"
#include "mnemosyne/optim/population.h"
#include "mnemosyne/optim/rules.h"
#include "mnemosyne/optim/weights.h"
#include "rule_testing.h"
#include "testing.h"

/// Attention over space and time in the default rule.
namespace mnemosyne::optim {
namespace {

using testing::clones;
using testing::close;
using testing::identical;
using testing::waves;

constexpr double kStepBound = 0.7;
const std::vector<std::vector<int64_t>> kShapes{
    {}, {5}, {40, 30}, {1, 7}, {7, 1}, {8, 3, 3, 3}, {2, 2, 3, 2, 2}, {700}, {0, 3}};

MnemosyneRuleOptions attending(const StepAttentionOptions& attention = {}) {
  MnemosyneRuleOptions options{.step_bound = kStepBound, .attention = attention};
  options.attention.enabled = true;
  options.attention.chunk_size = 64;
  options.attention.chunk_length = 4;
  return options;
}

/// Heads that say something.
std::shared_ptr<UpdateRule> with_random_weights(const MnemosyneRuleOptions& options,
                                                uint64_t seed = 7, double scale = 0.5) {
  at::manual_seed(seed);
  const MnemosyneRule rule(options);
  NamedTensors weights = rule.weights();
  for (auto& [name, weight] : weights) {
    const bool head = name == "controller" || name.find("_head.weight") != std::string::npos;
    if (head) weight = scale * at::randn(weight.sizes());
  }
  return rule.with_weights(weights);
}

/// Pure and in place, from the same start; the parameters of both.
std::pair<std::vector<at::Tensor>, std::vector<at::Tensor>> two_runs(const UpdateRule& pure,
                                                                     const UpdateRule& fused,
                                                                     const StepOptions& options) {
  std::vector<at::Tensor> a = waves(kShapes, 0.3), b = clones(a);
  State state_a = init_state(pure, a), state_b = init_state(fused, b);
  for (int64_t step = 0; step < 8; ++step) {
    const std::vector<at::Tensor> grads = waves(kShapes, 1.7 * static_cast<double>(step) + 1.0);
    const UpdateResult result = pure.update(grads, state_a, a, options);
    for (size_t i = 0; i < a.size(); ++i) a[i] = a[i] - result.updates[i];
    state_a = result.state;
    fused.step_(grads, state_b, b, options);
  }
  return {a, b};
}

void expect_close(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b,
                  const testing::Tolerance& tolerance) {
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(close(a[i], b[i], tolerance)) << "parameter " << i;
  }
}

TEST(StepAttention, FromZeroHeadsItIsTheBaseRule) {
  const auto [base, attended] = two_runs(*make_rule("orthogonal"), MnemosyneRule(attending()), {});
  expect_close(attended, base, {.rtol = 1e-4, .atol = 2e-5});
}

TEST(StepAttention, FusedStepEqualsTheReadableOne) {
  for (const std::string position : {"flt", "absolute", "none"}) {
    const auto rule = with_random_weights(attending({.position = position}));
    const auto [pure, fused] = two_runs(*rule, *rule, {.num_steps = 8});
    expect_close(fused, pure, {.rtol = 1e-3, .atol = 1e-4});
    const auto [base, same] = two_runs(*make_rule("orthogonal"), *rule, {.num_steps = 8});
    EXPECT_FALSE(close(same[2], base[2], {.rtol = 1e-2, .atol = 1e-3})) << "it says something";
  }
}

TEST(StepAttention, GrowsOnAControllerAndCanBeTakenOff) {
  NamedTensors learned = make_rule("mnemosyne")->weights();
  at::manual_seed(12);
  learned[0].second = 0.3 * at::randn(learned[0].second.sizes());
  const auto controller = make_rule("mnemosyne")->with_weights(learned);
  // Heads start from zero, so that nothing of what the controller has learned is lost.
  const auto grown = with_options(*controller, R"({"attention": true})");
  EXPECT_TRUE(at::equal(find(grown->weights(), "controller"), learned[0].second));
  EXPECT_GT(grown->weights().size(), 1u);
  const auto [before, after] = two_runs(*controller, *grown, {.num_steps = 8});
  expect_close(after, before, {.rtol = 1e-3, .atol = 1e-4});
  const auto back = with_options(*with_random_weights(attending()), R"({"attention": false})");
  ASSERT_EQ(back->weights().size(), 1u);
  EXPECT_GT(back->weights()[0].second.abs().max().item<double>(), 0.0);
}

TEST(StepAttention, EveryPartCountsAndCanBeLeftOut) {
  const auto rule = with_random_weights(attending(), 8);
  const std::vector<at::Tensor> whole = two_runs(*rule, *rule, {}).second;
  for (const StepAttentionOptions& without :
       {StepAttentionOptions{.memory = false}, StepAttentionOptions{.chunks = false},
        StepAttentionOptions{.position = "none"}}) {
    const auto part = with_options(*rule, MnemosyneRule(attending(without)).options_json());
    const auto [pure, fused] = two_runs(*part, *part, {});
    expect_close(fused, pure, {.rtol = 1e-3, .atol = 1e-4});
    const double difference = (fused[2] - whole[2]).abs().max().item<double>();
    EXPECT_GT(difference, 1e-5) << part->options_json();
  }
}

TEST(StepAttention, PermutesWithTheParameters) {
  const auto rule = with_random_weights(attending());
  std::vector<at::Tensor> a = waves(kShapes, 0.3), b(a.rbegin(), a.rend());
  State state_a = init_state(*rule, a), state_b = init_state(*rule, b);
  for (int64_t step = 0; step < 4; ++step) {
    const std::vector<at::Tensor> grads = waves(kShapes, 1.3 * static_cast<double>(step) + 1.0);
    UpdateResult forth = rule->update(grads, state_a, a, {});
    UpdateResult back =
        rule->update(std::vector<at::Tensor>(grads.rbegin(), grads.rend()), state_b, b, {});
    std::reverse(back.updates.begin(), back.updates.end());
    expect_close(back.updates, forth.updates, {.rtol = 1e-4, .atol = 1e-5});
    state_a = forth.state;
    state_b = back.state;
  }
}

TEST(StepAttention, StridesChangeNothing) {
  const auto rule = with_random_weights(attending());
  const std::vector<at::Tensor> plain = waves({{40, 30}, {16, 8, 3, 3}}, 0.3);
  const std::vector<at::Tensor> turned{plain[0].t().contiguous().t(),
                                       plain[1].contiguous(at::MemoryFormat::ChannelsLast)};
  ASSERT_FALSE(turned[0].is_contiguous() || turned[1].is_contiguous());
  std::vector<at::Tensor> a = clones(plain), b = turned;
  State state_a = init_state(*rule, a), state_b = init_state(*rule, b);
  for (int64_t step = 0; step < 3; ++step) {
    const std::vector<at::Tensor> grads =
        waves({{40, 30}, {16, 8, 3, 3}}, 1.3 * static_cast<double>(step) + 1.0);
    rule->step_(grads, state_a, a, {});
    rule->step_({grads[0].t().contiguous().t(), grads[1]}, state_b, b, {});
  }
  expect_close(b, a, {.rtol = 1e-5, .atol = 1e-6});
}

TEST(StepAttention, TakesSeveralDtypesInOneList) {
  // Parts of one dtype are stepped apart, and what is decided of their chunks is put in order.
  const auto rule = with_random_weights(attending());
  const auto list = [](double phase) {
    std::vector<at::Tensor> tensors = waves(kShapes, phase);
    for (size_t i = 0; i < tensors.size(); i += 2) tensors[i] = tensors[i].to(at::kDouble);
    return tensors;
  };
  std::vector<at::Tensor> mixed = list(0.3), single = waves(kShapes, 0.3);
  State mixed_state = init_state(*rule, mixed), single_state = init_state(*rule, single);
  for (int64_t step = 0; step < 3; ++step) {
    const double phase = 1.3 * static_cast<double>(step) + 1.0;
    rule->step_(list(phase), mixed_state, mixed, {});
    rule->step_(waves(kShapes, phase), single_state, single, {});
  }
  for (size_t i = 0; i < mixed.size(); ++i) {
    EXPECT_TRUE(close(mixed[i].to(at::kFloat), single[i], {.rtol = 1e-3, .atol = 1e-4})) << i;
  }
}

TEST(StepAttention, MembersOfAPopulationStepAsTheyWouldAlone) {
  const std::vector<std::vector<int64_t>> shapes{{6, 40}, {90}, {3}};
  std::vector<std::shared_ptr<const UpdateRule>> rules;
  for (uint64_t seed = 0; seed < 3; ++seed) {
    rules.push_back(with_random_weights(attending(), 20 + seed));
  }
  EXPECT_TRUE(rules[0]->steps_with(*rules[1]));
  EXPECT_FALSE(rules[0]->steps_with(*with_random_weights(attending({.memory = false}))));
  std::vector<std::vector<at::Tensor>> together, alone;
  std::vector<State> states, own_states;
  for (size_t m = 0; m < rules.size(); ++m) {
    together.push_back(waves(shapes, 0.2));
    alone.push_back(waves(shapes, 0.2));
    states.push_back(init_state(*rules[m], together[m]));
    own_states.push_back(init_state(*rules[m], alone[m]));
  }
  for (int64_t step = 0; step < 4; ++step) {
    std::vector<std::vector<at::Tensor>> grads;
    for (size_t m = 0; m < rules.size(); ++m) {
      grads.push_back(waves(shapes, 1.1 * static_cast<double>(step) + static_cast<double>(m)));
    }
    std::vector<MemberStep> members;
    for (size_t m = 0; m < rules.size(); ++m) {
      members.push_back({rules[m].get(), grads[m], &states[m], together[m], {.num_steps = 4}});
      rules[m]->step_(grads[m], own_states[m], alone[m], {.num_steps = 4});
    }
    UpdateRule::step_members_(members);
  }
  // Up to rounding: attention of all of them is one batch.
  for (size_t m = 0; m < rules.size(); ++m) {
    expect_close(together[m], alone[m], {.rtol = 1e-4, .atol = 1e-5});
    EXPECT_TRUE(close(states[m].shared[0], own_states[m].shared[0], {.rtol = 1e-3, .atol = 1e-4}));
    EXPECT_FALSE(close(together[m][0], together[(m + 1) % rules.size()][0], {.atol = 1e-3}));
  }
}

TEST(StepAttention, EveryWeightHasTheGradientOfAWindow) {
  // Through the memories, too: what was written in one step is read in the next.
  const std::vector<std::vector<int64_t>> shapes{{6, 40}, {90}, {3}};
  const auto rule = with_random_weights(attending(), 3, 0.3);
  NamedTensors weights = rule->weights();  // in float64, but for the memories between steps
  for (auto& [name, weight] : weights) weight = weight.to(at::kDouble);
  const std::vector<at::Tensor> params = waves(shapes, 0.2, at::kDouble);
  std::vector<std::vector<at::Tensor>> cotangents;
  for (int64_t step = 0; step < 3; ++step) {
    cotangents.push_back(waves(shapes, 5.0 + static_cast<double>(step), at::kDouble));
  }
  const auto value = [&](const at::Tensor& theta) {
    const auto learned = rule->with_weights(unflatten(theta, weights));
    State state = init_state(*learned, params);
    at::Tensor sum = at::zeros({}, at::kDouble);
    for (int64_t step = 0; step < 3; ++step) {
      UpdateResult result = learned->update(waves(shapes, 1.1 * static_cast<double>(step) + 1.0),
                                            state, params, {.lr = 100.0});
      for (size_t i = 0; i < params.size(); ++i) {
        sum = sum + (result.updates[i] * cotangents[static_cast<size_t>(step)][i]).sum(at::kDouble);
      }
      state = std::move(result.state);
    }
    return sum;
  };
  const at::Tensor theta = flatten(weights).detach().requires_grad_(true);
  const at::Tensor gradient = torch::autograd::grad({value(theta)}, {theta})[0];
  int64_t first = 0;
  for (const auto& [name, weight] : weights) {
    const at::Tensor own = gradient.narrow(0, first, weight.numel());
    EXPECT_GT(own.abs().max().item<double>(), 0.0) << name;
    const at::Tensor direction = at::zeros_like(theta);
    at::manual_seed(first);
    direction.narrow(0, first, weight.numel()).copy_(at::randn({weight.numel()}));
    const at::NoGradGuard no_grad;
    const double actual = (gradient * direction).sum().item<double>();
    // Two differences, so that neither curvature nor the rounding of memories between steps counts.
    constexpr double kStep = 2e-3;
    const auto slope = [&](double h) {
      return ((value(theta + h * direction) - value(theta - h * direction)) / (2 * h))
          .item<double>();
    };
    const double expected = (4.0 * slope(kStep / 2) - slope(kStep)) / 3.0;
    EXPECT_NEAR(actual, expected, 0.01 * std::max(std::abs(expected), 0.01)) << name;
    first += weight.numel();
  }
}

TEST(StepAttention, AMemoryThatIsNotFiniteBeginsAnew) {
  const auto rule = with_random_weights(attending());
  const std::vector<at::Tensor> params = waves(kShapes, 0.3);
  State state = init_state(*rule, params);
  for (int64_t step = 0; step < 3; ++step) {
    state = rule->update(waves(kShapes, static_cast<double>(step) + 1.0), state, params, {}).state;
  }
  State spoiled = clone_state(state), empty = clone_state(state);
  spoiled[2].back().fill_(std::numeric_limits<float>::quiet_NaN());
  spoiled.shared[0].fill_(std::numeric_limits<float>::infinity());
  empty[2].back().zero_();
  empty.shared[0].zero_();
  const std::vector<at::Tensor> grads = waves(kShapes, 9.0);
  const UpdateResult a = rule->update(grads, spoiled, params, {});
  const UpdateResult b = rule->update(grads, empty, params, {});
  for (size_t i = 0; i < params.size(); ++i) {
    EXPECT_TRUE(identical(a.updates[i], b.updates[i])) << i;
  }
  EXPECT_TRUE(identical(a.state.shared[0], b.state.shared[0]));
}

TEST(StepAttention, ChunksKeepTheNormOfTheirTensor) {
  const std::vector<at::Tensor> params = waves({{300}, {4}, {0}}, 0.1);
  const ChunkGeometry geometry(params, 64);
  EXPECT_EQ(geometry.counts, (std::vector<int64_t>{5, 1, 1}));
  at::manual_seed(3);
  const at::Tensor factor = chunk_factor(at::randn({7}, at::kDouble), geometry, 0.5);
  const at::Tensor squares = factor.square() * geometry.sizes;
  EXPECT_NEAR(squares.narrow(0, 0, 5).sum().item<double>(), 300.0, 1e-9);
  EXPECT_NEAR(factor[5].item<double>(), 1.0, 1e-12) << "one chunk has nothing to share";
  EXPECT_LT(factor.max().item<double>() / factor.min().item<double>(), std::exp(1.0) * 1.0001);
  EXPECT_TRUE(identical(chunk_factor(at::zeros({7}, at::kDouble), geometry, 0.5),
                        at::ones({7}, at::kDouble)));
}

TEST(StepAttention, ChunksKnowWhereTheyAre) {
  const std::vector<at::Tensor> params = waves({{8, 16}, {4, 2, 3, 3}}, 0.1);
  const ChunkGeometry geometry(params, 32);
  EXPECT_EQ(geometry.counts, (std::vector<int64_t>{4, 3}));
  // A chunk of the matrix covers two rows, 32 numbers along the last axis: its middle is the start
  // of the second row.
  EXPECT_TRUE(close(geometry.positions[0], at::tensor({0.5, 0.0, 0.0}, at::kDouble)));
  EXPECT_TRUE(close(geometry.positions[3], at::tensor({3.5, 0.0, 0.0}, at::kDouble)));
  // 72 numbers in [4, 2, 9], of which a chunk covers 1.8, 3.6 and 32 along each axis: the middle of
  // the last one, 68, is at [3, 1, 5].
  EXPECT_TRUE(close(geometry.positions[6],
                    at::tensor({3.0 / (32.0 / 18), 1.0 / (32.0 / 9), 5.0 / 32}, at::kDouble)));
  EXPECT_TRUE(
      identical(geometry.sizes, at::tensor({32., 32., 32., 32., 32., 32., 8.}, at::kDouble)));
  const ChunkGeometry part = geometry.part(1, 1);
  EXPECT_EQ(part.first, 4);
  EXPECT_TRUE(identical(part.positions, geometry.positions.narrow(0, 4, 3)));
}

TEST(StepAttention, AWeightsFileGivesTheRuleBack) {
  const auto rule = with_random_weights(attending());
  const std::string path = testing::temporary_path("attention.safetensors");
  save_rule(path, *rule);
  const auto loaded = load_rule(path);
  EXPECT_EQ(weights_hash(*loaded), weights_hash(*rule));
  EXPECT_EQ(loaded->options_json(), rule->options_json());
  // Axes name what the rows and columns are of.
  const WeightAxes axes = rule->weight_axes();
  for (const auto& [name, lists] : axes) {
    const at::Tensor weight = find(rule->weights(), name);
    ASSERT_EQ(lists.size(), static_cast<size_t>(weight.dim())) << name;
    for (size_t axis = 0; axis < lists.size(); ++axis) {
      if (lists[axis].empty()) continue;
      EXPECT_EQ(static_cast<int64_t>(lists[axis].size()), weight.size(static_cast<int64_t>(axis)));
    }
  }
  EXPECT_EQ(axes.size(), 5u);
}

TEST(StepAttention, TheWeightsOfTheLibraryHaveLearnedHeads) {
  const auto rule = mnemosyne_rule({.variant = "attention"});
  EXPECT_EQ(rule->name(), "mnemosyne");
  EXPECT_GT(rule->weights().size(), 1u);
  for (const char* head : {"attention.tensor_head.weight", "attention.chunk_head.weight"}) {
    const NamedTensors weights = rule->weights();
    EXPECT_GT(find(weights, head).abs().max().item<double>(), 1e-3) << head;
  }
  // Those of the default rule are others, and neither name is given the other's file.
  EXPECT_NE(weights_hash(*rule), weights_hash(*mnemosyne_rule({})));
  EXPECT_EQ(weights_hash(*default_rule("mnemosyne-attention")), weights_hash(*rule));
  const auto base = mnemosyne_rule({.variant = "attention", .learned = false});
  EXPECT_EQ(base->weights().size(), 1u);
  EXPECT_THROW(mnemosyne_rule({.variant = "attentive"}), InputError);
}

TEST(StepAttention, StateIsSmallAndOfTensorsAndTheList) {
  const MnemosyneRule rule(attending());
  const at::Tensor p = at::zeros({700});  // 11 chunks of 64, 3 meta-tokens of 4 chunks
  const StateLayout layout = rule.state_layout(p);
  EXPECT_EQ(layout.back().name, "memory");
  EXPECT_EQ(rule.shared_layout().at(0).name, "network_memory");
  EXPECT_EQ(layout.back().shape[0], 3 * rule.shared_layout().at(0).shape[1]);
  const MnemosyneRule forgetful(attending({.memory = false}));
  EXPECT_EQ(forgetful.state_layout(p).size(), 4u);
  EXPECT_TRUE(forgetful.shared_layout().empty());
  EXPECT_EQ(MnemosyneRule({.learned = false, .attention = {.enabled = true}}).weights().size(), 1u);
}

TEST(StepAttention, BadOptionsAreNamed) {
  for (const StepAttentionOptions& bad :
       {StepAttentionOptions{.enabled = true, .chunk_size = 0},
        StepAttentionOptions{.enabled = true, .chunk_length = 0},
        StepAttentionOptions{.enabled = true, .width = 15},
        StepAttentionOptions{.enabled = true, .position = "rope"},
        StepAttentionOptions{.enabled = true, .chunk_bound = 3.5}}) {
    EXPECT_THROW(MnemosyneRule({.attention = bad}), InputError);
  }
  EXPECT_THROW(MnemosyneRule(attending()).with_weights({{"controller", at::zeros({3, 3})}}),
               InputError);
}

}  // namespace
}  // namespace mnemosyne::optim
