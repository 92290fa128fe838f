#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <vector>

#include "mnemosyne/ops/linear_attention/linear_attention.h"
#include "mnemosyne/ops/short_attention/short_attention.h"
#include "tests/linear_attention_cases.h"
#include "tests/testing.h"

namespace mnemosyne::ops {
namespace {

using testing::AttentionCall;
using testing::AttentionCase;
using testing::close;

/// The gradient of a sum of squares of all gradients, in every differentiable tensor.
std::vector<at::Tensor> second_derivatives(AttentionCall& call, bool state) {
  std::vector<at::Tensor> leaves;
  for (at::Tensor* x : call.differentiable()) leaves.push_back(*x);
  const LinearAttentionResult result = linear_attention(call.inputs, call.options);
  at::Tensor total = result.output.square().sum().to(at::kDouble);
  if (state) {
    total = total + result.state.sums.square().sum() + result.state.normalizer.square().sum();
  }
  const auto first = torch::autograd::grad({total}, leaves, {}, /*retain_graph=*/true,
                                           /*create_graph=*/true, /*allow_unused=*/true);
  at::Tensor norm;
  for (const at::Tensor& grad : first) {
    if (!grad.defined()) continue;
    const at::Tensor square = grad.square().sum().to(at::kDouble);
    norm = norm.defined() ? norm + square : square;
  }
  std::vector<at::Tensor> result_list = first;
  const auto second = torch::autograd::grad({norm}, leaves, {}, false, false, true);
  result_list.insert(result_list.end(), second.begin(), second.end());
  return result_list;
}

TEST(SecondDerivative, OfTheKernelIsThatOfTheReferenceInFloat64) {
  for (AttentionCase c : testing::attention_cases()) {
    if (c.queries > 140 || c.keys > 140) continue;
    SCOPED_TRACE(testing::describe(c));
    // Of a state alone the offset, which is held constant, would not cancel.
    for (const bool state : {false, true}) {
      if (state && (!c.with_state || testing::has_offset(c))) continue;
      const AttentionCall given = testing::make_call(c);
      AttentionCall fused = given.leaves(at::kFloat), exact = given.leaves(at::kDouble);
      const auto actual = second_derivatives(fused, state);
      const auto expected = second_derivatives(exact, state);
      for (const size_t half : {size_t{0}, expected.size() / 2}) {
        double size = 0;
        for (size_t i = half; i < half + expected.size() / 2; ++i) {
          if (expected[i].defined()) size = std::max(size, expected[i].abs().max().item<double>());
        }
        EXPECT_GT(size, 0);
        for (size_t i = half; i < half + expected.size() / 2; ++i) {
          if (!expected[i].defined()) {
            EXPECT_TRUE(!actual[i].defined() || actual[i].abs().max().item<double>() == 0.0) << i;
            continue;
          }
          EXPECT_TRUE(close(actual[i], expected[i], {.rtol = 1e-3, .atol = 1e-4 * size})) << i;
        }
      }
    }
  }
}

TEST(SecondDerivative, OneTensorInThreePlacesCountsThreeTimes) {
  const auto derivative = [](at::ScalarType type) {
    at::manual_seed(2);
    const at::Tensor x = at::randn({1, 2, 5, 4}, at::kDouble).to(type).requires_grad_();
    const auto options = LinearAttentionOptions{.feature_map = FeatureMapKind::kElu};
    const at::Tensor total =
        linear_attention({.query = x, .key = x, .value = x}, options).output.square().sum();
    const at::Tensor first = torch::autograd::grad({total}, {x}, {}, true, true).front();
    const at::Tensor second =
        torch::autograd::grad({first.pow(3).sum()}, {x}, {}, true, true).front();
    const at::Tensor third = torch::autograd::grad({second.square().sum()}, {x}).front();
    return std::vector<at::Tensor>{first, second, third};
  };
  const auto expected = derivative(at::kDouble), actual = derivative(at::kFloat);
  for (size_t i = 0; i < 3; ++i) {
    const double size = expected[i].detach().abs().max().item<double>();
    EXPECT_TRUE(close(actual[i], expected[i], {.rtol = 1e-3, .atol = 1e-4 * size})) << i;
  }
}

TEST(SecondDerivative, FirstOnesStayThoseOfTheKernel) {
  const AttentionCall given = testing::make_call({.map = FeatureMapKind::kRelu});
  const auto gradient = [&](bool differentiable) {
    AttentionCall call = given.leaves(at::kFloat);
    const at::Tensor output = linear_attention(call.inputs, call.options).output;
    return torch::autograd::grad({output.square().sum()}, {call.inputs.query}, {}, true,
                                 differentiable)
        .front();
  };
  EXPECT_FALSE(gradient(false).requires_grad());
  const at::Tensor again = gradient(true);
  EXPECT_TRUE(again.requires_grad());
  EXPECT_TRUE(close(again, gradient(false), {1e-4, 1e-5}));
}

TEST(SecondDerivative, OfShortAttentionIsThatOfItsReference) {
  for (const bool causal : {false, true}) {
    const auto derivative = [&](at::ScalarType type) {
      at::manual_seed(3);
      const at::Tensor qkv = at::randn({10, 18}, at::kDouble).to(type).requires_grad_();
      const at::Tensor total = short_attention(qkv, 5, 2, causal).pow(3).sum();
      const at::Tensor first = torch::autograd::grad({total}, {qkv}, {}, true, true).front();
      return torch::autograd::grad({first.square().sum()}, {qkv}).front();
    };
    const at::Tensor expected = derivative(at::kDouble);
    EXPECT_TRUE(close(derivative(at::kFloat), expected, {1e-3, 1e-4}));
  }
}

}  // namespace
}  // namespace mnemosyne::ops
