#include "mnemosyne/ops/fourier_features.h"

#include "position_testing.h"
#include "testing.h"

namespace mnemosyne::ops {
namespace {

using testing::close;
using testing::gradients_agree;
using testing::offsets_of;
using testing::product;

SpectralSum some_sum(int64_t dim, bool with_sine) {
  at::manual_seed(1);
  SpectralSum sum{at::randn({2, 3, dim}, at::kDouble), at::randn({2, 3}, at::kDouble), {}, {}};
  if (with_sine) sum.sine = at::randn({2, 3}, at::kDouble);
  return sum;
}

TEST(FourierFeatures, InnerProductIsTheSum) {
  for (const bool with_sine : {false, true}) {
    const SpectralSum sum = some_sum(2, with_sine);
    const at::Tensor x = at::randn({4, 5, 2}, at::kDouble);
    const PositionFeatures features = fourier_features(sum, x);
    EXPECT_EQ(features.query.sizes(), at::IntArrayRef({4, 2, 5, 6}));
    for (int64_t b = 0; b < 4; ++b) {
      const at::Tensor expected = fourier_sum(sum, offsets_of(x[b]));
      EXPECT_TRUE(close(product(features)[b], expected, {1e-12, 1e-12}));
    }
  }
}

TEST(FourierFeatures, SumIsTheFormula) {
  const SpectralSum sum = some_sum(1, true);
  const at::Tensor z = at::tensor({-1.3, 0.0, 2.1}, at::kDouble);
  const at::Tensor angle = 2.0 * M_PI * sum.frequencies * z;  // [2, 3, 3]
  const at::Tensor expected =
      (sum.cosine.unsqueeze(-1) * angle.cos() + sum.sine.unsqueeze(-1) * angle.sin()).sum(1);
  EXPECT_TRUE(close(fourier_sum(sum, z.unsqueeze(-1)), expected, {1e-12, 1e-12}));
}

TEST(FourierFeatures, SplitKeepsBothSidesSmallAndTheGradientAtZero) {
  SpectralSum sum = some_sum(1, true);
  sum.cosine = at::tensor({0.0, 1e-8, 4.0, -4.0, 0.01, 0.0}, at::kDouble).view({2, 3});
  sum.sine = at::zeros_like(sum.cosine);
  const PositionFeatures features = fourier_features(sum, testing::line(3));
  EXPECT_LE(features.query.abs().max().item<double>(), 2.0 + 1e-6);
  EXPECT_LE(features.key.abs().max().item<double>(), 2.0 + 1e-6);
  sum.cosine.requires_grad_();
  sum.sine.requires_grad_();
  const at::Tensor weight = at::randn({2, 3, 3}, at::kDouble);
  EXPECT_TRUE(gradients_agree(
      [&] { return (product(fourier_features(sum, testing::line(3))) * weight).sum(); },
      {sum.cosine, sum.sine}));
}

/// Waves that fade: features with a decay per wave.
PositionFeatures fading(const at::Tensor& x) {
  PositionFeatures features = fourier_features(some_sum(1, true), x);
  features.decay = at::tensor({0.1, 0.5, 2.0, 0.1, 0.5, 2.0}, at::kDouble).repeat({2, 1});
  return features;
}

TEST(FourierFeatures, LogDecayIsTheRateTimesTheGapToThePositionBefore) {
  const at::Tensor decay = at::tensor({0.5, 2.0}, at::kDouble).view({1, 2});
  const at::Tensor x = at::tensor({3.0, 3.5, 7.0}, at::kDouble);
  const auto expect = [&](const at::Tensor& actual, const at::Tensor& gaps) {
    const at::Tensor expected =
        -gaps.unsqueeze(-2).unsqueeze(-1) * decay.view({1, 1, 2});  // [..., 1, L, 2]
    EXPECT_TRUE(close(actual, expected, {1e-12, 1e-12}));
  };
  expect(log_decay(decay, x), at::tensor({0.0, 0.5, 3.5}, at::kDouble));
  expect(log_decay(decay, x, at::tensor({1.0}, at::kDouble)),
         at::tensor({2.0, 0.5, 3.5}, at::kDouble));
  // Examples that were elsewhere before the same tokens.
  expect(log_decay(decay, x, at::tensor({1.0, 3.0}, at::kDouble).view({2, 1})),
         at::tensor({2.0, 0.5, 3.5, 0.0, 0.5, 3.5}, at::kDouble).view({2, 3}));
  EXPECT_THROW(log_decay(decay, x.flip(0)), c10::Error);
  EXPECT_THROW(log_decay(decay, x, at::tensor({4.0}, at::kDouble)), c10::Error);
  EXPECT_THROW(log_decay(decay, at::tensor({0.0, NAN}, at::kDouble)), c10::Error);
}

TEST(FourierFeatures, TokensWithoutAPositionDoNotDecay) {
  const at::Tensor x = testing::line(4);
  const at::Tensor has = at::tensor({1, 0, 1, 1}).to(at::kBool);
  const PositionFeatures features = with_unplaced_tokens(fading(x), has);
  EXPECT_EQ(features.decay.sizes(), at::IntArrayRef({2, 8}));
  const at::Tensor both = has.unsqueeze(0).logical_and(has.unsqueeze(1));
  EXPECT_TRUE(close(testing::faded_product(features, x),
                    at::where(both, testing::faded_product(fading(x), x), 1.0).tril(),
                    {1e-10, 1e-10}));
}

}  // namespace
}  // namespace mnemosyne::ops
