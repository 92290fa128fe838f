#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/serialize.h>

#include <sstream>

#include "mnemosyne/core/error.h"
#include "mnemosyne/optim/optimizer.h"
#include "mnemosyne/optim/update_rule.h"
#include "testing.h"

/// State that belongs to a list of parameters instead of to one.
namespace mnemosyne::optim {
namespace {

using mnemosyne::testing::identical;

/// Steps of the average sign of all gradients so far: the list remembers their sum and number.
class AverageSign : public UpdateRule {
 public:
  std::string name() const override { return "average-sign"; }
  StateLayout state_layout(const at::Tensor&) const override { return {step_entry()}; }
  StateLayout shared_layout() const override {
    return {float_entry("sum", {1}), float_entry("count", {})};
  }
  double default_lr() const override { return 0.1; }
  std::shared_ptr<const UpdateRule> elementwise() const override { return nullptr; }

 protected:
  UpdateResult do_update(at::TensorList grads, const State& state, at::TensorList params,
                         const StepOptions& options) const override {
    UpdateResult result{.updates = {}, .state = state};
    at::Tensor sum = state.shared[0];
    for (const at::Tensor& grad : grads) sum = sum + grad.sum();
    result.state.shared = {sum, state.shared[1] + 1};
    for (size_t i = 0; i < params.size(); ++i) {
      result.state[i][0] = state[i][0] + 1;
      result.updates.push_back(
          (options.lr * sum.sign() / result.state.shared[1]).expand(params[i].sizes()));
    }
    return result;
  }
};

std::vector<at::Tensor> two_params() {
  std::vector<at::Tensor> params{at::ones({3}), at::ones({2, 2})};
  for (at::Tensor& param : params) param.requires_grad_(true);
  return params;
}

void set_gradients(std::vector<at::Tensor>& params, double value) {
  for (at::Tensor& param : params) param.mutable_grad() = at::full_like(param, value);
}

TEST(SharedState, StartsAtZeroAndGoesFromStepToStep) {
  const AverageSign rule;
  const std::vector<at::Tensor> params{at::ones({3}), at::ones({2, 2})};
  const std::vector<at::Tensor> grads{at::ones({3}), -2 * at::ones({2, 2})};
  State state = init_state(rule, params);
  ASSERT_EQ(state.shared.size(), 2u);
  EXPECT_EQ(state.shared[0].item<float>(), 0);
  const UpdateResult result = rule.update(grads, state, params, {.lr = 1.0});
  EXPECT_EQ(state.shared[1].item<float>(), 0) << "`update` writes to nothing";
  EXPECT_EQ(result.state.shared[0].item<float>(), -5);
  rule.step_(grads, state, params, {.lr = 1.0});
  rule.step_(grads, state, params, {.lr = 1.0});
  EXPECT_EQ(state.shared[0].item<float>(), -10);
  EXPECT_EQ(state.shared[1].item<float>(), 2);
  EXPECT_TRUE(identical(params[0], at::full({3}, 2.5)));
  State copy = clone_state(state);
  copy.shared[0].zero_();
  EXPECT_EQ(state.shared[0].item<float>(), -10);
}

TEST(SharedState, OfAnotherShapeIsRefused) {
  const AverageSign rule;
  const std::vector<at::Tensor> params{at::ones({3})}, grads{at::ones({3})};
  State state = init_state(rule, params);
  state.shared[0] = at::zeros({2});
  try {
    rule.step_(grads, state, params, {});
    FAIL() << "expected an InputError";
  } catch (const InputError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("sum of float32 [1] for the list"), std::string::npos) << text;
  }
  EXPECT_EQ(step_count(state[0]), 0);
}

TEST(SharedState, OfEachGroupIsInAnOptimizersArchive) {
  const auto rule = std::make_shared<AverageSign>();
  const auto make = [&](std::vector<at::Tensor>& params) {
    return RuleOptimizer({torch::optim::OptimizerParamGroup({params[0]}),
                          torch::optim::OptimizerParamGroup({params[1]})},
                         rule);
  };
  std::vector<at::Tensor> params = two_params(), resumed = two_params();
  RuleOptimizer optimizer = make(params), other = make(resumed);
  EXPECT_TRUE(optimizer.shared_state(0).empty());
  set_gradients(params, 2.0);
  optimizer.step();
  EXPECT_EQ(optimizer.shared_state(0)[0].item<float>(), 6);
  EXPECT_EQ(optimizer.shared_state(1)[0].item<float>(), 8);

  std::stringstream archive;
  torch::save(optimizer, archive);
  torch::load(other, archive);
  EXPECT_EQ(other.shared_state(1)[0].item<float>(), 8);
  for (size_t i = 0; i < params.size(); ++i) resumed[i].data().copy_(params[i].data());
  set_gradients(params, -3.0);
  set_gradients(resumed, -3.0);
  optimizer.step();
  other.step();
  for (size_t i = 0; i < params.size(); ++i) EXPECT_TRUE(identical(resumed[i], params[i]));
  EXPECT_TRUE(identical(other.shared_state(1)[0], optimizer.shared_state(1)[0]));
}

}  // namespace
}  // namespace mnemosyne::optim
