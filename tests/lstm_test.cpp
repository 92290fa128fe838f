#include "mnemosyne/optim/lstm.h"

#include <torch/csrc/autograd/autograd.h>

#include "isa_testing.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/kernels/isa.h"
#include "mnemosyne/optim/rules.h"
#include "testing.h"

namespace mnemosyne::optim {
namespace {

using mnemosyne::testing::close;

// H = hidden units, F = features, N = coordinates.
ops::LstmWeights random_weights(int64_t hidden, int64_t num_features) {
  const auto draw = [](at::IntArrayRef shape) { return 0.5 * at::randn(shape); };
  return {.matrices = {draw({4 * hidden, num_features + hidden}), draw({4 * hidden, 2 * hidden})},
          .biases = {draw({4 * hidden}), draw({4 * hidden})},
          .output_weight = draw({1, hidden}),
          .output_bias = draw({1})};
}

ops::LstmState random_state(int64_t hidden, int64_t size) {
  return {at::rand({hidden, size}) - 0.5, at::randn({hidden, size}), at::rand({hidden, size}) - 0.5,
          at::randn({hidden, size})};
}

class LstmStep : public testing::EveryIsa {};

TEST_P(LstmStep, FusedIsTheReference) {
  at::manual_seed(1);
  for (const int64_t hidden : {1, 5, 20, 64}) {
    const ops::LstmWeights weights = random_weights(hidden, 2);
    std::vector<ops::LstmState> fused;
    std::vector<at::Tensor> features, expected_outputs;
    std::vector<ops::LstmState> expected;
    for (const int64_t size : {1, 31, 0, 33, 2049}) {
      features.push_back(at::randn({2, size}));
      fused.push_back(random_state(hidden, size));
      expected.push_back(fused.back());
      expected_outputs.push_back(
          ops::lstm_step_reference(features.back(), expected.back(), weights));
    }
    const at::Tensor output = ops::lstm_step_(at::cat(features, 1), fused, weights);
    EXPECT_TRUE(close(output, at::cat(expected_outputs), {.rtol = 1e-5, .atol = 1e-5}));
    for (size_t k = 0; k < fused.size(); ++k) {
      for (size_t slot = 0; slot < 4; ++slot) {
        EXPECT_TRUE(close(fused[k][slot], expected[k][slot], {.rtol = 1e-5, .atol = 2e-6}))
            << "hidden " << hidden << " tensor " << k << " slot " << slot;
      }
    }
  }
}

TEST_P(LstmStep, SaturatesWithoutOverflow) {
  ops::LstmWeights weights = random_weights(20, 2);
  for (at::Tensor& matrix : weights.matrices) matrix.mul_(1e3);
  std::vector<ops::LstmState> states{random_state(20, 40)};
  const at::Tensor output = ops::lstm_step_(1e3 * at::randn({2, 40}), states, weights);
  EXPECT_TRUE(at::isfinite(output).all().item<bool>());
  EXPECT_TRUE((states[0][0].abs() <= 1.0f + 1e-6).all().item<bool>());
}

INSTANTIATE_TEST_SUITE_P(Isas, LstmStep, ::testing::ValuesIn(kernels::available_isas()),
                         [](const auto& info) { return kernels::isa_name(info.param); });

TEST(LstmStepErrors, NameTheShapes) {
  const ops::LstmWeights weights = random_weights(20, 2);
  EXPECT_THROW(ops::lstm_step_(at::randn({2, 5}), {random_state(20, 4)}, weights), c10::Error);
  EXPECT_THROW(ops::lstm_step_(at::randn({2, 4}), {random_state(19, 4)}, weights), c10::Error);
}

// Three steps in float64 with gradients of very different sizes: a number that depends on all
// weights.
at::Tensor unrolled(const UpdateRule& rule, const std::vector<at::Tensor>& params) {
  State state = init_state(rule, params);
  at::Tensor sum = at::zeros({}, at::kDouble);
  for (int step = 0; step < 3; ++step) {
    std::vector<at::Tensor> grads;
    for (const at::Tensor& param : params) {
      const at::Tensor index = at::arange(param.numel(), at::kDouble);
      grads.push_back(((index * 1.7 + step).cos() * at::pow(10.0, -index)).reshape(param.sizes()));
    }
    UpdateResult result = rule.update(grads, state, params, {});
    for (const at::Tensor& update : result.updates) sum = sum + update.sum() * (1.0 + step);
    state = result.state;
  }
  return sum;
}

class LstmRules : public ::testing::TestWithParam<std::string> {};

TEST_P(LstmRules, GradientsOfAllWeightsAreFiniteDifferences) {
  const auto fresh = make_rule(GetParam(), R"({"num_hidden": 3, "seed": 1})");
  const std::vector<at::Tensor> params{at::ones({2, 3}, at::kDouble), at::ones({}, at::kDouble)};
  NamedTensors weights = fresh->weights();
  std::vector<at::Tensor> leaves;
  for (auto& [name, tensor] : weights) {
    tensor = tensor.to(at::kDouble).add(0.1).requires_grad_();
    leaves.push_back(tensor);
  }
  const auto analytic =
      torch::autograd::grad({unrolled(*fresh->with_weights(weights), params)}, leaves);
  const at::NoGradGuard no_grad;
  for (size_t k = 0; k < weights.size(); ++k) {
    const at::Tensor flat = leaves[k].detach().reshape({-1});
    const at::Tensor numeric = at::zeros_like(flat);
    for (int64_t i = 0; i < flat.numel(); ++i) {
      const auto moved = [&](double by) {
        at::Tensor other = flat.clone();
        other[i] += by;
        NamedTensors changed = weights;
        changed[k].second = other.reshape(leaves[k].sizes());
        return unrolled(*fresh->with_weights(changed), params).item<double>();
      };
      numeric[i] = (moved(1e-5) - moved(-1e-5)) / 2e-5;
    }
    EXPECT_TRUE(close(analytic[k].reshape({-1}), numeric, {.rtol = 1e-5, .atol = 1e-9}))
        << weights[k].first;
    EXPECT_GT(analytic[k].abs().max().item<double>(), 0.0) << weights[k].first;
  }
}

TEST_P(LstmRules, TensorsDoNotInfluenceOneAnother) {
  const auto rule = make_rule(GetParam());
  const std::vector<at::Tensor> params{at::zeros({4, 3}), at::zeros({5})};
  const std::vector<at::Tensor> grads{at::randn({4, 3}), at::randn({5})};
  const auto both = rule->update(grads, init_state(*rule, params), params, {});
  const auto alone = rule->update({grads[1]}, init_state(*rule, {params[1]}), {params[1]}, {});
  EXPECT_TRUE(close(both.updates[1], alone.updates[0]));
}

TEST_P(LstmRules, DrawTheirWeightsFromTheSeed) {
  const auto first = make_rule(GetParam(), R"({"seed": 1})")->weights();
  const auto again = make_rule(GetParam(), R"({"seed": 1})")->weights();
  const auto other = make_rule(GetParam(), R"({"seed": 2})")->weights();
  EXPECT_TRUE(at::equal(flatten(first), flatten(again)));
  EXPECT_FALSE(at::equal(flatten(first), flatten(other)));
}

TEST_P(LstmRules, RefuseWeightsOfAnotherShapeOrName) {
  const auto rule = make_rule(GetParam());
  NamedTensors weights = rule->weights();
  weights[0].second = at::zeros({3, 3});
  EXPECT_THROW(rule->with_weights(weights), InputError);
  weights = rule->weights();
  weights[0].first = "layers.7.bias";
  EXPECT_THROW(rule->with_weights(weights), InputError);
}

INSTANTIATE_TEST_SUITE_P(Rules, LstmRules, ::testing::Values("lstm", "lstm-rnnprop"),
                         [](const auto& info) {
                           return std::string(info.param == "lstm" ? "Lstm" : "RnnProp");
                         });

}  // namespace
}  // namespace mnemosyne::optim
