#include "mnemosyne/ops/short_attention/short_attention.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>
#include <tuple>

#include "mnemosyne/kernels/isa.h"
#include "tests/isa_testing.h"
#include "tests/testing.h"

namespace mnemosyne::ops {
namespace {

using mnemosyne::testing::close;

// E = sequences, T = tokens, H = heads, D = features of a head.

class ShortAttention
    : public ::testing::TestWithParam<std::tuple<kernels::Isa, int64_t, int64_t, bool>> {
 protected:
  void SetUp() override { at::manual_seed(1); }

 private:
  testing::UsedIsa isa_{std::get<0>(GetParam())};
};

INSTANTIATE_TEST_SUITE_P(Shapes, ShortAttention,
                         ::testing::Combine(::testing::ValuesIn(kernels::available_isas()),
                                            ::testing::Values<int64_t>(1, 5, 16, 49),
                                            ::testing::Values<int64_t>(1, 8, 16, 60),
                                            ::testing::Bool()));

TEST_P(ShortAttention, IsItsReferenceInValuesAndGradients) {
  const auto [isa, tokens, depth, causal] = GetParam();
  constexpr int64_t kExamples = 2, kHeads = 3;
  at::Tensor qkv = at::randn({kExamples * tokens, 3 * kHeads * depth});
  qkv.requires_grad_(true);
  at::Tensor exact = qkv.detach().to(at::kDouble);
  exact.requires_grad_(true);
  const at::Tensor output = short_attention(qkv, tokens, kHeads, causal);
  const at::Tensor expected = short_attention_reference(exact, tokens, kHeads, causal);
  EXPECT_TRUE(close(output, expected, {.rtol = 1e-5, .atol = 1e-5}));
  const at::Tensor grad = at::randn_like(expected.detach());
  const at::Tensor actual_grad =
      torch::autograd::grad({output}, {qkv}, {grad.to(at::kFloat)}).front();
  const at::Tensor expected_grad = torch::autograd::grad({expected}, {exact}, {grad}).front();
  EXPECT_TRUE(close(actual_grad, expected_grad, {.rtol = 1e-5, .atol = 1e-5}));
}

TEST_P(ShortAttention, StaysFiniteForLargeScoresAndShowsWhatIsNot) {
  const auto [isa, tokens, depth, causal] = GetParam();
  at::Tensor qkv = at::randn({tokens, 3 * depth}) * 1e4;
  EXPECT_TRUE(short_attention(qkv, tokens, 1, causal).isfinite().all().item<bool>());
  qkv.narrow(1, 2 * depth, depth).fill_(std::numeric_limits<float>::quiet_NaN());
  EXPECT_TRUE(short_attention(qkv, tokens, 1, causal).isnan().all().item<bool>());
}

TEST(ShortAttentionInput, IsChecked) {
  EXPECT_THROW(short_attention(at::zeros({7, 12}), 2, 2, false), c10::Error);
  EXPECT_THROW(short_attention(at::zeros({8, 10}), 2, 2, false), c10::Error);
  EXPECT_EQ(short_attention(at::zeros({0, 12}), 2, 2, false).numel(), 0);
}

}  // namespace
}  // namespace mnemosyne::ops
