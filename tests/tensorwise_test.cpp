#include "mnemosyne/optim/tensorwise.h"

#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>

#include "mnemosyne/optim/rules.h"
#include "tensorwise_testing.h"

/// Coordinates as tokens, meta-tokens with a memory, a decoder for every coordinate.
namespace mnemosyne::optim {
namespace {

using testing::clones;
using testing::close;
using testing::gradients;
using testing::identical;
using testing::kTensorShapes;
using testing::small_tensorwise;
using testing::waves;
using testing::with_random_head;

using Tensors = std::vector<at::Tensor>;

/// Eight steps, pure and in place, from the same start; the parameters of both.
std::pair<Tensors, Tensors> two_runs(const UpdateRule& pure, const UpdateRule& in_place,
                                     const StepOptions& options) {
  Tensors a = waves(kTensorShapes, 0.3), b = clones(a);
  State state_a = init_state(pure, a), state_b = init_state(in_place, b);
  for (int64_t step = 0; step < 8; ++step) {
    const UpdateResult result = pure.update(gradients(kTensorShapes, step), state_a, a, options);
    for (size_t i = 0; i < a.size(); ++i) a[i] = a[i] - result.updates[i];
    state_a = result.state;
    in_place.step_(gradients(kTensorShapes, step), state_b, b, options);
  }
  return {a, b};
}

void expect_close(const Tensors& a, const Tensors& b, const testing::Tolerance& tolerance) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(close(a[i], b[i], tolerance)) << "parameter " << i;
  }
}

TEST(TensorwiseRule, FromAHeadOfZerosItIsTheBaseRuleBitForBit) {
  const auto base = make_rule("orthogonal");
  const TensorwiseRule rule(small_tensorwise());
  const StepOptions options{.lr = 0.5, .weight_decay = 0.1, .num_steps = 8};
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    const Tensors params = waves(kTensorShapes, 0.3, dtype);
    State state = init_state(rule, params), base_state = init_state(*base, params);
    for (int64_t step = 0; step < 3; ++step) {
      const Tensors grads = gradients(kTensorShapes, step, dtype);
      UpdateResult own = rule.update(grads, state, params, options);
      UpdateResult expected = base->update(grads, base_state, params, options);
      for (size_t i = 0; i < params.size(); ++i) {
        EXPECT_TRUE(identical(own.updates[i], expected.updates[i])) << "parameter " << i;
      }
      state = std::move(own.state);
      base_state = std::move(expected.state);
    }
  }
  // In place the base rule's kernels round otherwise.
  const auto [expected, stepped] = two_runs(*base, rule, options);
  expect_close(stepped, expected, {.rtol = 1e-4, .atol = 2e-5});
}

TEST(TensorwiseRule, ThatHasNotLearnedIsTheBaseRuleWithItsState) {
  const auto base = make_rule("orthogonal");
  const auto off = with_options(*with_random_head(small_tensorwise()), R"({"learned": false})");
  EXPECT_TRUE(off->weights().empty());
  EXPECT_EQ(off->state_names(), base->state_names());
  Tensors a = waves(kTensorShapes, 0.3), b = clones(a);
  State state_a = init_state(*base, a), state_b = init_state(*off, b);
  for (int64_t step = 0; step < 3; ++step) {
    base->step_(gradients(kTensorShapes, step), state_a, a, {.weight_decay = 0.1});
    off->step_(gradients(kTensorShapes, step), state_b, b, {.weight_decay = 0.1});
  }
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(identical(b[i], a[i])) << i;
}

TEST(TensorwiseRule, StepInPlaceIsTheUpdate) {
  for (const std::string position : {"none", "flt", "absolute"}) {
    const auto rule = with_random_head(small_tensorwise({.position = position}));
    const auto [pure, in_place] = two_runs(*rule, *rule, {.num_steps = 8});
    expect_close(in_place, pure, {.rtol = 1e-3, .atol = 1e-4});
    const auto [base, same] = two_runs(*make_rule("orthogonal"), *rule, {.num_steps = 8});
    EXPECT_FALSE(close(same[2], base[2], {.rtol = 1e-2, .atol = 1e-3})) << "it says something";
  }
}

TEST(TensorwiseRule, EveryPartOfTheNetworkCounts) {
  const auto rule = with_random_head(small_tensorwise({.position = "flt"}));
  const Tensors whole = two_runs(*rule, *rule, {}).first;
  for (const TensorwiseNetworkOptions& without :
       {TensorwiseNetworkOptions{.position = "flt", .memory = false},
        TensorwiseNetworkOptions{.position = "none"}}) {
    const auto part = with_options(*rule, TensorwiseRule(small_tensorwise(without)).options_json());
    const Tensors other = two_runs(*part, *part, {}).first;
    EXPECT_GT((other[2] - whole[2]).abs().max().item<double>(), 1e-6) << part->options_json();
  }
  // A tensor sees the others of its network.
  const Tensors params = waves({{6, 5}, {9}}, 0.3), grads = gradients({{6, 5}, {9}}, 0);
  const auto both = rule->update(grads, init_state(*rule, params), params, {});
  const auto alone = rule->update({grads[0]}, init_state(*rule, {params[0]}), {params[0]}, {});
  EXPECT_FALSE(close(alone.updates[0], both.updates[0], {.rtol = 1e-3, .atol = 0}));
}

TEST(TensorwiseRule, PermutesWithTheParameters) {
  const auto rule = with_random_head(small_tensorwise({.position = "flt"}));
  Tensors a = waves(kTensorShapes, 0.3), b(a.rbegin(), a.rend());
  State state_a = init_state(*rule, a), state_b = init_state(*rule, b);
  for (int64_t step = 0; step < 4; ++step) {
    const Tensors grads = gradients(kTensorShapes, step);
    UpdateResult forth = rule->update(grads, state_a, a, {});
    UpdateResult back = rule->update(Tensors(grads.rbegin(), grads.rend()), state_b, b, {});
    std::reverse(back.updates.begin(), back.updates.end());
    expect_close(back.updates, forth.updates, {.rtol = 1e-4, .atol = 1e-5});
    state_a = forth.state;
    state_b = back.state;
  }
}

TEST(TensorwiseRule, ChunksAreOfLogicalIndicesWhateverTheStrides) {
  const std::vector<std::vector<int64_t>> shapes{{20, 15}, {8, 4, 3, 3}};
  for (const std::string position : {"none", "flt"}) {
    const auto rule = with_random_head(small_tensorwise({.position = position}));
    Tensors a = waves(shapes, 0.3);
    Tensors b{a[0].t().contiguous().t(), a[1].contiguous(at::MemoryFormat::ChannelsLast)};
    ASSERT_FALSE(b[0].is_contiguous() || b[1].is_contiguous());
    State state_a = init_state(*rule, a), state_b = init_state(*rule, b);
    for (int64_t step = 0; step < 3; ++step) {
      const Tensors grads = gradients(shapes, step);
      rule->step_(grads, state_a, a, {});
      rule->step_({grads[0].t().contiguous().t(), grads[1]}, state_b, b, {});
    }
    expect_close(b, a, {.rtol = 1e-5, .atol = 1e-6});
  }
}

TEST(TensorwiseRule, ScaleOfTheLossDoesNotMatter) {
  const auto rule = with_random_head(small_tensorwise());
  for (const double scale : {1e-2, 1e6}) {
    Tensors a = waves(kTensorShapes, 0.3, at::kDouble), b = clones(a);
    State state_a = init_state(*rule, a), state_b = init_state(*rule, b);
    for (int64_t step = 0; step < 4; ++step) {
      const Tensors grads = gradients(kTensorShapes, step, at::kDouble);
      Tensors scaled;
      for (const at::Tensor& g : grads) scaled.push_back(scale * g);
      rule->step_(grads, state_a, a, {});
      rule->step_(scaled, state_b, b, {});
    }
    expect_close(b, a, {.rtol = 1e-3, .atol = 1e-4});
  }
}

TEST(TensorwiseRule, ACoordinateMovesWithinItsBounds) {
  const TensorwiseOptions options = small_tensorwise();
  const auto rule = with_random_head(options, /*scale=*/100.0);
  const auto base = make_rule("orthogonal");
  const Tensors params = waves(kTensorShapes, 0.3, at::kDouble);
  State state = init_state(*rule, params), base_state = init_state(*base, params);
  double largest = 0.0;
  for (int64_t step = 0; step < 4; ++step) {
    const Tensors grads = gradients(kTensorShapes, step, at::kDouble);
    UpdateResult own = rule->update(grads, state, params, {});
    UpdateResult expected = base->update(grads, base_state, params, {});
    for (size_t i = 0; i < params.size(); ++i) {
      if (params[i].numel() == 0) continue;
      const double unit = matrix_rows(params[i]) > 0 ? ops::kDirectionRms : 1.0;
      const double change = base_step_size({}, {}, step + 1) * unit * options.direction_bound;
      const at::Tensor most =
          std::exp(options.magnitude_bound) * (expected.updates[i].abs() + change);
      const double share = (own.updates[i].abs() / most).max().item<double>();
      EXPECT_LE(share, 1.0 + 1e-9) << "parameter " << i;
      largest = std::max(largest, share);
    }
    state = std::move(own.state);
    base_state = std::move(expected.state);
  }
  EXPECT_GT(largest, 0.99) << "the bounds are reached";
}

TEST(TensorwiseRule, EveryWeightHasTheGradientOfAWindow) {
  // Through the memories, too: what was written in one step is read in the next.
  const std::vector<std::vector<int64_t>> shapes{{6, 8}, {9}, {3}};
  for (const std::string position : {"none", "flt"}) {
    const auto rule = with_random_head(small_tensorwise({.position = position}), 0.3);
    NamedTensors weights = rule->weights();
    for (auto& [name, weight] : weights) weight = weight.to(at::kDouble);
    const Tensors params = waves(shapes, 0.2, at::kDouble);
    const auto value = [&](const at::Tensor& theta) {
      const auto learned = rule->with_weights(unflatten(theta, weights));
      State state = init_state(*learned, params);
      at::Tensor sum = at::zeros({}, at::kDouble);
      for (int64_t step = 0; step < 3; ++step) {
        UpdateResult result = learned->update(gradients(shapes, step, at::kDouble), state, params,
                                              {.lr = 100.0, .num_steps = 5});
        const Tensors cotangents = waves(shapes, 5.0 + static_cast<double>(step), at::kDouble);
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
      const at::Tensor own = gradient.narrow(0, first, weight.numel());
      EXPECT_GT(own.abs().max().item<double>(), 0.0) << name;
      at::manual_seed(first);
      const at::Tensor direction = at::zeros_like(theta);
      direction.narrow(0, first, weight.numel()).copy_(at::randn({weight.numel()}, at::kDouble));
      const at::NoGradGuard no_grad;
      constexpr double kStep = 1e-5;
      const double difference =
          (value(theta + kStep * direction) - value(theta - kStep * direction)).item<double>();
      const double expected = difference / (2.0 * kStep);
      EXPECT_NEAR((gradient * direction).sum().item<double>(), expected,
                  1e-5 * std::abs(expected) + 1e-6)
          << position << " " << name;
      first += weight.numel();
    }
  }
}

TEST(TensorwiseRule, TakesSeveralDtypesInOneList) {
  const auto rule = with_random_head(small_tensorwise());
  const auto list = [](double phase) {
    Tensors tensors = waves(kTensorShapes, phase);
    for (size_t i = 0; i < tensors.size(); i += 2) tensors[i] = tensors[i].to(at::kDouble);
    return tensors;
  };
  Tensors mixed = list(0.3), single = waves(kTensorShapes, 0.3);
  State mixed_state = init_state(*rule, mixed), single_state = init_state(*rule, single);
  for (int64_t step = 0; step < 3; ++step) {
    const double phase = 1.3 * static_cast<double>(step) + 1.0;
    rule->step_(list(phase), mixed_state, mixed, {});
    rule->step_(waves(kTensorShapes, phase), single_state, single, {});
  }
  for (size_t i = 0; i < mixed.size(); ++i) {
    EXPECT_TRUE(close(mixed[i].to(at::kFloat), single[i], {.rtol = 1e-3, .atol = 1e-4})) << i;
  }
  for (const Tensors& nothing : {Tensors{}, waves({{0}}, 0.1), waves({{0}, {0, 3}}, 0.1)}) {
    State state = init_state(*rule, nothing);
    EXPECT_EQ(rule->update(nothing, state, nothing, {}).updates.size(), nothing.size());
    rule->step_(nothing, state, nothing, {});
  }
}

}  // namespace
}  // namespace mnemosyne::optim
