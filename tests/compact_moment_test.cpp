// Second moments in bfloat16, rounded at random.
#include <algorithm>
#include <cmath>

#include "isa_testing.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/kernels/isa.h"
#include "mnemosyne/optim/mnemosyne_rule.h"
#include "mnemosyne/optim/rules.h"
#include "mnemosyne/optim/weights.h"
#include "rule_testing.h"
#include "tensor_step_cases.h"

namespace mnemosyne {
namespace {

using namespace ops::step_testing;
using ops::TensorStep;
using optim::make_rule;
using optim::State;
using optim::UpdateRule;
using testing::clones;
using testing::close;
using testing::identical;
using testing::waves;

/// Vectors whose second moments are `decay` times what they are, without a gradient, which every
/// way computes exactly.
TensorStep decaying(double decay, const std::vector<at::Tensor>& second_moments) {
  TensorStep step;
  for (const at::Tensor& v : second_moments) {
    step.params.push_back(at::zeros(v.sizes()));
    step.grads.push_back(at::zeros(v.sizes()));
    step.momenta.push_back(at::zeros(v.sizes()));
    step.second_moments.push_back(v.to(at::kBFloat16));
    step.rows.push_back(0);
    step.base.push_back({.second_decay = decay, .rounding_seed = 0xC0FFEE01});
  }
  return step;
}

constexpr double kExact = 1 - 1.0 / 256;  // eight bits times eight

class CompactMoment : public testing::EveryIsa {};

TEST_P(CompactMoment, HasTheRandomBitsOfTheReferenceEverywhere) {
  at::manual_seed(3);
  const std::vector<at::Tensor> v{at::rand({40'003}), at::rand({7, 33}), at::rand({1})};
  for (const int64_t chunk_size : {0, 1009}) {
    const auto stepped = [&](const std::string& way) {
      TensorStep step = decaying(kExact, v);
      step.chunk_size = chunk_size;
      const at::NoGradGuard no_grad;
      if (way == "kernel") advance_moments_(step, true);
      if (way == "lists") advance_moments_device_(step, true, ops::kMostAtOnce);
      if (way == "stretches") advance_moments_device_(step, false, 1000);
      if (way == "reference") advance_moments_reference(step, true);
      return step.second_moments;
    };
    const std::vector<at::Tensor> expected = stepped("reference");
    for (const char* way : {"kernel", "lists", "stretches"}) {
      const std::vector<at::Tensor> actual = stepped(way);
      for (size_t i = 0; i < v.size(); ++i) EXPECT_TRUE(identical(actual[i], expected[i])) << way;
    }
    EXPECT_FALSE(identical(expected[0], (kExact * v[0].to(at::kBFloat16)).to(at::kBFloat16)));
  }
}

TEST_P(CompactMoment, IsRightInTheMean) {
  // A quarter of the way between two neighbours.
  const at::Tensor low = at::full({1 << 18}, 1.0), high = at::full({1 << 18}, 1.0 + 1.0 / 128);
  const at::Tensor x = low + 0.25 * (high - low);
  const at::Tensor index = at::arange(x.numel(), at::kLong);
  const at::Tensor bits = ops::rounding_bits(index, at::full({}, int64_t{12345}, at::kLong));
  EXPECT_LT(bits.min().item<int64_t>(), 16);
  EXPECT_GT(bits.max().item<int64_t>(), 0xFFEF);
  EXPECT_LE(bits.max().item<int64_t>(), 0xFFFF);
  const at::Tensor rounded = ops::round_at_random(x, bits);
  EXPECT_TRUE(((rounded == low) | (rounded == high)).all().item<bool>());
  // Six deviations of the mean of so many draws.
  EXPECT_NEAR((rounded == high).to(at::kDouble).mean().item<double>(), 0.25, 0.005);
  // What bfloat16 has stays; signs and infinities, too.
  const at::Tensor exact = at::tensor({0.0F, 1.0F, 1.0078125F, 3e38F, INFINITY});
  const at::Tensor some = exact.to(at::kBFloat16).to(at::kFloat);
  EXPECT_TRUE(identical(ops::round_at_random(some, at::full({5}, 0xFFFF, at::kLong)), some));
  // Neighbours, and the same coordinate in other steps, know nothing of each other.
  const at::Tensor uniform = bits.to(at::kDouble) / 65536 - 0.5;
  const auto correlation = [&](const at::Tensor& a, const at::Tensor& b) {
    return 12 * (a * b).mean().item<double>();
  };
  const int64_t n = uniform.numel() - 1;
  EXPECT_NEAR(correlation(uniform.narrow(0, 0, n), uniform.narrow(0, 1, n)), 0.0, 0.012);
  const at::Tensor other = ops::rounding_bits(index, at::full({}, int64_t{12346}, at::kLong));
  EXPECT_NEAR(correlation(uniform, other.to(at::kDouble) / 65536 - 0.5), 0.0, 0.012);
}

// Why: v <- b v + (1 - b) g^2 with the same g, 3,000 times. Rounded to nearest, it stops where the
// share of a step is less than half of the last place.
TEST_P(CompactMoment, ReachesTheMeanOfSquaresWhereRoundingToNearestStops) {
  for (const double decay : {0.99, 0.999}) {
    TensorStep step = decaying(decay, {at::zeros({4096})});
    step.grads[0].fill_(1.5F);
    at::Tensor nearest = at::zeros({}, at::kBFloat16);
    for (int64_t t = 0; t < 6 / (1 - decay); ++t) {
      step.base[0].rounding_seed = static_cast<uint32_t>(2654435761u * t);
      ops::advance_moments_(step, false);
      nearest = (decay * nearest.to(at::kFloat) + (1 - decay) * 2.25).to(at::kBFloat16);
    }
    const at::Tensor v = step.second_moments[0].to(at::kDouble) / 2.25;
    EXPECT_NEAR(v.mean().item<double>(), 1 - std::exp(-6.0), 0.005) << decay;
    EXPECT_LT(v.std().item<double>(), 0.06) << decay;
    EXPECT_LT(nearest.item<double>() / 2.25, decay > 0.99 ? 0.55 : 0.95) << decay;
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, CompactMoment, ::testing::ValuesIn(kernels::available_isas()),
                         [](const auto& info) { return kernels::isa_name(info.param); });

TEST(CompactMomentInput, IsBFloat16OfAllTensorsOrNone) {
  TensorStep step = decaying(kExact, {at::rand({5}), at::rand({6})});
  step.second_moments[1] = at::rand({6});
  EXPECT_THROW(ops::advance_moments_(step, true), c10::Error);
}

// The rule.

const std::vector<std::vector<int64_t>> kShapes{{}, {5}, {40, 30}, {8, 3, 3, 3}, {700}, {0, 3}};
const char kCompact[] = R"({"second_moment": "bfloat16", "alignment": true})";

std::shared_ptr<UpdateRule> learned(const std::string& options) {
  const auto rule = make_rule("mnemosyne", options);
  at::manual_seed(7);
  const at::Tensor like = rule->weights()[0].second;
  return rule->with_weights({{"controller", 0.3 * at::randn(like.sizes())}});
}

std::vector<at::Tensor> gradients(int64_t step, at::ScalarType dtype = at::kFloat) {
  return waves(kShapes, 1.7 * static_cast<double>(step) + 1.0, dtype);
}

TEST(CompactMomentRule, WithAlignmentTheStateHasEightBytesAParameter) {
  const at::Tensor p = at::zeros({300, 200});
  const auto bytes = [&](const char* options) {
    double sum = 0;
    for (const at::Tensor& x : make_rule("mnemosyne", options)->init(p)) {
      sum += static_cast<double>(x.nbytes());
    }
    return sum / static_cast<double>(p.numel());
  };
  EXPECT_LT(bytes("{}"), 8.001);
  EXPECT_LT(bytes(R"({"second_moment": "bfloat16"})"), 6.001);
  EXPECT_LT(bytes(kCompact), 8.001);
  EXPECT_EQ(make_rule("mnemosyne", R"({"second_moment": "float32"})")->options_json(),
            make_rule("mnemosyne")->options_json());
  EXPECT_THROW(make_rule("mnemosyne", R"({"second_moment": "float16"})"), InputError);
  EXPECT_FALSE(make_rule("mnemosyne", kCompact)->steps_with(*make_rule("mnemosyne")));
}

TEST(CompactMomentRule, FusedStepEqualsTheReadableOne) {
  const auto rule = learned(kCompact);
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16}) {
    std::vector<at::Tensor> pure = waves(kShapes, 0.3, dtype), fused = clones(pure);
    State pure_state = init_state(*rule, pure), state = init_state(*rule, fused);
    for (int64_t s = 0; s < 8; ++s) {
      optim::UpdateResult result = rule->update(gradients(s, dtype), pure_state, pure, {});
      for (size_t i = 0; i < pure.size(); ++i) {
        pure[i] = (pure[i].to(result.updates[i].scalar_type()) - result.updates[i]).to(dtype);
      }
      pure_state = std::move(result.state);
      rule->step_(gradients(s, dtype), state, fused, {});
    }
    const double eps = dtype == at::kBFloat16 ? 2e-2 : 2e-3;
    for (size_t i = 0; i < pure.size(); ++i) {
      EXPECT_EQ(state[i][2].scalar_type(), at::kBFloat16);
      EXPECT_TRUE(close(fused[i], pure[i], {.rtol = eps, .atol = 0.1 * eps})) << i;
      EXPECT_TRUE(close(state[i][2], pure_state[i][2], {.rtol = 0.02, .atol = 1e-6})) << i;
    }
  }
}

TEST(CompactMomentRule, ARunResumesBitForBitInAnyOrderOfItsParameters) {
  const auto rule = learned(R"({"second_moment": "bfloat16"})");
  std::vector<at::Tensor> whole = waves(kShapes, 0.3);
  State state = init_state(*rule, whole);
  const auto step = [&](std::vector<at::Tensor>& params, State& own, int64_t first, int64_t last) {
    for (int64_t s = first; s < last; ++s) rule->step_(gradients(s), own, params, {});
  };
  step(whole, state, 0, 5);
  std::vector<at::Tensor> resumed = clones(whole);
  State resumed_state = clone_state(state);
  step(whole, state, 5, 9);
  step(resumed, resumed_state, 5, 9);
  for (size_t i = 0; i < whole.size(); ++i) {
    EXPECT_TRUE(identical(resumed[i], whole[i])) << i;
    EXPECT_TRUE(identical(resumed_state[i][2], state[i][2])) << i;
  }
  // v is that of its own gradients, wherever the parameter stands.
  std::vector<at::Tensor> turned = waves(kShapes, 0.3);
  std::reverse(turned.begin(), turned.end());
  State turned_state = init_state(*rule, turned);
  for (int64_t s = 0; s < 9; ++s) {
    std::vector<at::Tensor> grads = gradients(s);
    std::reverse(grads.begin(), grads.end());
    rule->step_(grads, turned_state, turned, {});
  }
  for (size_t i = 0; i < whole.size(); ++i) {
    EXPECT_TRUE(identical(turned_state[whole.size() - 1 - i][2], state[i][2])) << i;
  }
}

TEST(CompactMomentRule, StepsAreThoseOfFloatUpToItsNoise) {
  const auto exact = learned("{}"), compact = learned(R"({"second_moment": "bfloat16"})");
  std::vector<at::Tensor> a = waves(kShapes, 0.3), b = clones(a);
  State state_a = init_state(*exact, a), state_b = init_state(*compact, b);
  for (int64_t s = 0; s < 50; ++s) {
    exact->step_(gradients(s), state_a, a, {});
    compact->step_(gradients(s), state_b, b, {});
  }
  const std::vector<at::Tensor> start = waves(kShapes, 0.3);
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].numel() == 0) continue;
    const double moved = (a[i] - start[i]).norm().item<double>();
    const double apart = (a[i] - b[i]).norm().item<double>();
    EXPECT_LT(apart, 0.03 * moved) << i;
    EXPECT_GT(apart, 0.0) << i;
  }
}

}  // namespace
}  // namespace mnemosyne
