// The last guard of a step: an update that is not finite is never written, and is counted.

#include <torch/serialize/archive.h>

#include <cmath>
#include <limits>
#include <sstream>
#include <vector>

#include "mnemosyne/optim/mnemosyne_rule.h"
#include "mnemosyne/optim/optimizer.h"
#include "mnemosyne/optim/rules.h"
#include "mnemosyne/optim/weights.h"
#include "tests/testing.h"

namespace mnemosyne::optim {
namespace {

using testing::close;
using testing::identical;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

bool finite(const at::Tensor& x) { return at::isfinite(x).all().item<bool>(); }

/// A matrix, a vector and a number.
std::vector<at::Tensor> tensors(int64_t seed, at::ScalarType dtype = at::kFloat) {
  at::manual_seed(seed);
  return {at::randn({6, 5}, dtype), at::randn({7}, dtype), at::randn({}, dtype)};
}

std::shared_ptr<UpdateRule> mnemosyne(const std::string& options = "{}") {
  return make_rule("mnemosyne", options)->with_weights(default_rule("mnemosyne")->weights());
}

struct Steps {
  Steps(std::shared_ptr<UpdateRule> the_rule, at::ScalarType dtype)
      : rule(std::move(the_rule)), params(tensors(1, dtype)), state(init_state(*rule, params)) {}

  void step(const std::vector<at::Tensor>& grads) {
    rule->step_(grads, state, params, {.lr = rule->default_lr(), .fallbacks = &count});
  }

  std::shared_ptr<UpdateRule> rule;
  std::vector<at::Tensor> params;
  State state;
  DeferredCount count;
};

/// Every rule whose step is guarded, in both compute dtypes (fused, and by tensors).
class EveryGuardedRule : public ::testing::TestWithParam<std::tuple<std::string, at::ScalarType>> {
 protected:
  Steps steps() const {
    const auto& [name, dtype] = GetParam();
    return Steps(name == "mnemosyne" ? mnemosyne() : make_rule(name), dtype);
  }
  at::ScalarType dtype() const { return std::get<1>(GetParam()); }
};

TEST_P(EveryGuardedRule, CountsNothingWhereAllIsWell) {
  Steps all = steps();
  for (int step = 0; step < 3; ++step) all.step(tensors(10 + step, dtype()));
  EXPECT_EQ(all.count.total(), 0);
}

TEST_P(EveryGuardedRule, WritesNothingThatIsNotFiniteAndRecovers) {
  Steps all = steps();
  all.step(tensors(10, dtype()));
  for (at::Tensor& tensor : all.state[0]) {
    if (tensor.is_floating_point() && tensor.numel() > 3) tensor.view({-1})[3] = kNaN;
  }
  const std::vector<at::Tensor> before = {all.params[1].clone(), all.params[2].clone()};
  all.step(tensors(11, dtype()));
  EXPECT_EQ(all.count.total(), 1);
  for (const at::Tensor& param : all.params) EXPECT_TRUE(finite(param));
  for (int i = 0; i < 2; ++i) {
    EXPECT_FALSE(identical(all.params[i + 1], before[i])) << "the other tensors are moved";
  }
  const at::Tensor first = all.params[0].clone();
  for (int step = 0; step < 3; ++step) all.step(tensors(12 + step, dtype()));
  EXPECT_EQ(all.count.total(), 1) << "the state has started anew";
  EXPECT_FALSE(identical(all.params[0], first));
  EXPECT_TRUE(finite(all.params[0]));
}

INSTANTIATE_TEST_SUITE_P(
    All, EveryGuardedRule,
    ::testing::Combine(::testing::Values("mnemosyne", "orthogonal", "muon", "lstm", "lstm-rnnprop",
                                         "mnemosyne-compact", "mnemosyne-coordinate",
                                         "mnemosyne-tensor", "mnemosyne-super"),
                       ::testing::Values(at::kFloat, at::kDouble)),
    [](const auto& info) {
      std::string name = std::get<0>(info.param) + "_" + at::toString(std::get<1>(info.param));
      for (char& c : name) c = c == '-' ? '_' : c;
      return name;
    });

/// The step of the base rule's first step, and Adam's direction after one step: g / (|g| + eps).
double first_step_size() { return base_step_size({}, {}, 1); }
at::Tensor adam(const at::Tensor& g) { return g / (g.abs() + 1e-8); }

TEST(Fallback, OfMnemosyneIsAdamsDirection) {
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    NamedTensors weights = default_rule("mnemosyne")->weights();
    for (auto& [name, tensor] : weights) tensor = at::full_like(tensor, kNaN);
    Steps run(mnemosyne()->with_weights(weights), dtype);
    const std::vector<at::Tensor> before = tensors(1, dtype), grads = tensors(2, dtype);
    run.step(grads);
    EXPECT_EQ(run.count.total(), 3);
    EXPECT_TRUE(close(run.params[0], before[0] - .2 * first_step_size() * adam(grads[0])));
    EXPECT_TRUE(close(run.params[1], before[1] - first_step_size() * adam(grads[1])));
    EXPECT_TRUE(close(run.params[2], before[2] - first_step_size() * adam(grads[2])));
  }
}

TEST(Fallback, OfAMatrixWithoutSecondMomentIsItsMomentum) {
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    Steps run(make_rule("orthogonal"), dtype);
    run.state[0][1][2][2] = kNaN;
    const std::vector<at::Tensor> before = tensors(1, dtype), grads = tensors(2, dtype);
    run.step(grads);
    EXPECT_EQ(run.count.total(), 1);
    at::Tensor m = grads[0].clone();
    m[2][2] = 0;
    const at::Tensor expected = before[0] - .2 * first_step_size() * m / m.square().mean().sqrt();
    EXPECT_TRUE(close(run.params[0], expected));
  }
}

TEST(Fallback, ACoordinateWithoutAFiniteStepStays) {
  // 0 / 0: Adam has none without eps where no gradient has been.
  for (const std::string name : {"orthogonal", "mnemosyne"}) {
    const std::string options = R"({"eps": 0})";
    Steps run(name == "mnemosyne" ? mnemosyne(options) : make_rule(name, options), at::kFloat);
    std::vector<at::Tensor> grads = tensors(2);
    grads[1][3] = 0;
    const at::Tensor before = run.params[1].clone();
    run.step(grads);
    EXPECT_GE(run.count.total(), 1) << name;
    EXPECT_EQ(run.params[1][3].item<float>(), before[3].item<float>()) << name;
    EXPECT_NE(run.params[1][2].item<float>(), before[2].item<float>()) << name;
    for (const at::Tensor& param : run.params) EXPECT_TRUE(finite(param)) << name;
  }
}

TEST(Fallback, HugeGradientsNeedNone) {
  // Their squares, summed in float, are infinite; the scale of the loss must not matter.
  for (const std::string name : {"mnemosyne", "orthogonal", "muon", "adafactor"}) {
    const auto rule = name == "mnemosyne" ? mnemosyne() : make_rule(name);
    at::manual_seed(3);
    const at::Tensor start = at::randn({40, 900});
    std::vector<at::Tensor> usual = {start.clone()}, huge = {start.clone()};
    State usual_state = init_state(*rule, usual), huge_state = init_state(*rule, huge);
    DeferredCount count;
    const StepOptions options{.lr = rule->default_lr(), .fallbacks = &count};
    for (int step = 0; step < 4; ++step) {
      const at::Tensor grad = at::randn({40, 900});
      std::vector<at::Tensor> large = {grad * 1e17};
      DeferredCount nonfinite;
      clean_gradients(large, nonfinite);
      rule->step_({grad}, usual_state, usual, options);
      rule->step_(large, huge_state, huge, options);
    }
    ASSERT_TRUE(finite(huge[0])) << name;
    if (name == "adafactor") continue;  // its statistics overflow: it stays where it is
    EXPECT_EQ(count.total(), 0) << name;
    const double moved = (usual[0] - start).norm().item<double>();
    EXPECT_LT((huge[0] - usual[0]).norm().item<double>(), .2 * moved) << name;
  }
}

TEST(Fallback, IsCountedByTheOptimizerAndInItsCheckpoint) {
  const auto leaf = [] { return at::randn({4, 3}).requires_grad_(); };
  std::vector<at::Tensor> params = {leaf()};
  const auto rule = mnemosyne(R"({"eps": 0})");
  RuleOptimizer optimizer(params, rule);
  params[0].mutable_grad() = at::zeros({4, 3});
  optimizer.step();
  EXPECT_EQ(optimizer.fallback_count(), 1);
  EXPECT_EQ(optimizer.nonfinite_count(), 0);
  torch::serialize::OutputArchive archive(std::make_shared<torch::jit::CompilationUnit>());
  optimizer.save(archive);
  std::ostringstream out;
  archive.save_to(out);
  std::istringstream in(out.str());
  torch::serialize::InputArchive restored;
  restored.load_from(in);
  RuleOptimizer other({leaf()}, rule);
  other.load(restored);
  EXPECT_EQ(other.fallback_count(), 1);
}

TEST(DeferredCount, SumsFlagsAndNumbers) {
  DeferredCount count(2);
  count.add(3);
  count.add(at::ones({}, at::kBool));
  count.add(at::zeros({}, at::kBool));
  EXPECT_EQ(count.total(), 6);
}

}  // namespace
}  // namespace mnemosyne::optim
