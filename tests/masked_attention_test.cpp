#include "mnemosyne/ops/masked_attention.h"

#include "position_testing.h"
#include "testing.h"

namespace mnemosyne::ops {
namespace {

using testing::close;
using testing::gradients_agree;

struct Inputs {
  at::Tensor query, key, value;
};

Inputs positive_features(int64_t tokens) {
  at::manual_seed(1);
  return {at::rand({2, 2, tokens, 3}, at::kDouble), at::rand({2, 2, tokens, 3}, at::kDouble),
          at::randn({2, 2, tokens, 4}, at::kDouble)};
}

TEST(MaskedAttention, SoftmaxIsTheFormula) {
  const auto [q, k, v] = positive_features(5);
  const at::Tensor bias = at::randn({2, 5, 5}, at::kDouble);
  const at::Tensor weights = (at::matmul(q, k.mT()) / std::sqrt(3.0) + bias).exp();
  const at::Tensor seen = weights.tril();
  EXPECT_TRUE(close(softmax_attention_with_bias(q, k, v, bias, false),
                    at::matmul(weights, v) / weights.sum(-1, true), {1e-12, 1e-12}));
  EXPECT_TRUE(close(softmax_attention_with_bias(q, k, v, bias, true),
                    at::matmul(seen, v) / seen.sum(-1, true), {1e-12, 1e-12}));
  EXPECT_TRUE(close(softmax_attention_with_bias(q, k, v, {}, false),
                    softmax_attention_with_bias(q, k, v, at::zeros({1}, at::kDouble), false)));
  EXPECT_THROW(softmax_attention_with_bias(q, k.narrow(3, 0, 2), v, bias, false), c10::Error);
  EXPECT_THROW(softmax_attention_with_bias(q.narrow(2, 0, 2), k, v, {}, true), c10::Error);
}

TEST(MaskedAttention, FourierTransformsOnALineEqualTheDenseMask) {
  for (const int64_t length : {1, 2, 7}) {
    const auto [q, k, v] = positive_features(length);
    const at::Tensor factor = at::rand({2, 2 * length - 1}, at::kDouble) + 0.1;
    const at::Tensor index = at::arange(length);
    const at::Tensor lag = index.unsqueeze(1) - index.unsqueeze(0) + length - 1;
    const at::Tensor dense = factor.index({at::indexing::Slice(), lag});
    EXPECT_TRUE(close(fft_masked_attention(q, k, v, factor),
                      masked_linear_attention_reference(q, k, v, dense), {1e-10, 1e-10}));
  }
}

TEST(MaskedAttention, FourierTransformsInThePlaneEqualTheDenseMask) {
  const int64_t rows = 3, columns = 4;
  const auto [q, k, v] = positive_features(rows * columns);
  const at::Tensor factor = at::rand({2, 2 * rows - 1, 2 * columns - 1}, at::kDouble) + 0.1;
  const at::Tensor index = at::arange(rows * columns);
  const at::Tensor row = index.div(columns, "floor"), column = index.remainder(columns);
  const at::Tensor dense =
      factor.index({at::indexing::Slice(), row.unsqueeze(1) - row.unsqueeze(0) + rows - 1,
                    column.unsqueeze(1) - column.unsqueeze(0) + columns - 1});
  EXPECT_TRUE(close(fft_masked_attention(q, k, v, factor),
                    masked_linear_attention_reference(q, k, v, dense), {1e-10, 1e-10}));
}

TEST(MaskedAttention, ZerosAtNegativeOffsetsAreCausal) {
  const auto [q, k, v] = positive_features(6);
  at::Tensor factor = at::rand({2, 11}, at::kDouble) + 0.1;
  factor.narrow(1, 0, 5).zero_();
  const at::Tensor before = fft_masked_attention(q, k, v, factor);
  const at::Tensor changed = v.clone();
  changed.select(2, 4).add_(1.0);
  const at::Tensor after = fft_masked_attention(q, k, changed, factor);
  EXPECT_TRUE(close(after.narrow(2, 0, 4), before.narrow(2, 0, 4), {1e-10, 1e-10}));
  EXPECT_FALSE(close(after.select(2, 4), before.select(2, 4), {1e-3, 1e-3}));
}

TEST(MaskedAttention, FourierTransformsHaveTheRightGradients) {
  auto [q, k, v] = positive_features(3);
  at::Tensor factor = at::rand({2, 5}, at::kDouble) + 0.1;
  for (at::Tensor* input : {&q, &k, &v, &factor}) input->requires_grad_();
  const at::Tensor weight = at::randn({2, 2, 3, 4}, at::kDouble);
  EXPECT_TRUE(gradients_agree(
      [&] { return (fft_masked_attention(q, k, v, factor) * weight).sum(); }, {q, k, v, factor}));
  EXPECT_THROW(fft_masked_attention(q, k, v, at::rand({2, 7}, at::kDouble)), c10::Error);
}

}  // namespace
}  // namespace mnemosyne::ops
