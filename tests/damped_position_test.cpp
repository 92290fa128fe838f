#include "mnemosyne/nn/position/damped_position.h"

#include <torch/csrc/autograd/autograd.h>

#include "mnemosyne/core/error.h"
#include "position_testing.h"
#include "testing.h"

namespace mnemosyne::nn {
namespace {

using testing::close;
using testing::faded_product;
using testing::gradients_agree;
using testing::line;
using testing::offsets_of;

DampedPosition make(uint64_t seed) {
  DampedPosition position(DampedPositionOptions{
      .num_heads = 2, .num_components = 3, .min_width = 1.0, .max_width = 8.0, .seed = seed});
  position->to(at::kDouble);
  testing::randomise(*position, seed, 0.5);
  return position;
}

TEST(DampedPosition, FadedFeaturesAreTheFactorOfEarlierTokens) {
  const DampedPosition position = make(1);
  const at::Tensor x = line(12) + 100.0;
  const ops::PositionFeatures features = position->features(x);
  EXPECT_EQ(features.query.sizes(), at::IntArrayRef({2, 12, 10}));
  EXPECT_EQ(features.decay.sizes(), at::IntArrayRef({2, 10}));
  EXPECT_TRUE(close(faded_product(features, x), position->factor(offsets_of(x)), {1e-10, 1e-10}));
}

TEST(DampedPosition, AStatePerFeatureIsExactHoweverLongTheSequence) {
  const DampedPosition position = make(2);
  const int64_t length = 3000;
  const at::Tensor x = line(length);
  const ops::PositionFeatures features = position->features(x);
  at::manual_seed(3);
  const at::Tensor values = at::randn({length}, at::kDouble);
  const at::Tensor fade = (-features.decay).exp();
  at::Tensor state = at::zeros_like(features.decay);
  for (int64_t t = 0; t < length; ++t) {
    state = state * fade + features.key.select(1, t) * values[t];
  }
  const at::Tensor output = (features.query.select(1, length - 1) * state).sum(-1);
  const at::Tensor lags = (length - 1) - x;
  EXPECT_TRUE(close(output, at::matmul(position->factor(lags), values), {1e-9, 1e-9}));
}

TEST(DampedPosition, FactorIsPositiveForTheLaterTokenOnly) {
  DampedPosition position = make(4);
  testing::randomise(*position, 5, 3.0);
  const at::Tensor factor = position->factor(at::arange(-5, 50, at::kDouble).unsqueeze(-1));
  EXPECT_EQ(factor.narrow(1, 0, 5).abs().max().item<double>(), 0.0);
  EXPECT_GT(factor.narrow(1, 5, 50).min().item<double>(), 0.0);
  EXPECT_TRUE(close(position->mask(line(5)).exp(), position->factor(line(5)), {1e-12, 0.0}));
}

TEST(DampedPosition, SlopeAtOffsetZeroIsThatFromTheRight) {
  const DampedPosition position = make(8);
  const auto slopes = [&](double offset) {
    const at::Tensor z = at::full({1, 1}, offset, at::kDouble).requires_grad_();
    return torch::autograd::grad({position->factor(z).sum()}, {z}).front();
  };
  EXPECT_TRUE(close(slopes(0.0), slopes(1e-9), {1e-6, 1e-9}));
}

TEST(DampedPosition, GradientsAgreeWithDifferencesAlsoWithoutModulation) {
  const DampedPosition position = make(6);
  for (const double modulation : {0.4, 0.0}) {
    const at::Tensor x = line(4), weight = at::randn({2, 4, 4}, at::kDouble).tril();
    {
      const at::NoGradGuard no_grad;
      position->modulation.fill_(modulation);
    }
    EXPECT_TRUE(gradients_agree([&] { return (position->factor(offsets_of(x)) * weight).sum(); },
                                position->parameters()));
    EXPECT_TRUE(
        gradients_agree([&] { return (faded_product(position->features(x), x) * weight).sum(); },
                        position->parameters()));
    EXPECT_GT(position->modulation.grad().abs().max().item<double>(), 1e-3);
  }
}

TEST(DampedPosition, TokensWithoutAPositionCountFully) {
  const DampedPosition position = make(7);
  const at::Tensor x = line(4), has = at::tensor({0, 1, 1, 1}).to(at::kBool);
  const ops::PositionFeatures features = position->features(x, has);
  EXPECT_EQ(features.query.size(-1), position->num_features(true));
  const at::Tensor both = has.unsqueeze(0).logical_and(has.unsqueeze(1));
  EXPECT_TRUE(close(faded_product(features, x),
                    at::where(both, position->factor(offsets_of(x)), 1.0).tril(), {1e-10, 1e-10}));
}

TEST(DampedPosition, CopiesStandAloneAndBadOptionsAreRefused) {
  const DampedPosition position = make(8);
  const auto copy = std::dynamic_pointer_cast<DampedPositionImpl>(position->clone());
  const at::Tensor before = position->factor(line(4));
  EXPECT_TRUE(testing::identical(copy->factor(line(4)), before));
  testing::randomise(*copy, 9, 0.5);
  EXPECT_TRUE(testing::identical(position->factor(line(4)), before));
  EXPECT_THROW(DampedPosition(DampedPositionOptions{.num_components = 0}), InputError);
  EXPECT_THROW(DampedPosition(DampedPositionOptions{.min_width = 2.0, .max_width = 1.0}),
               InputError);
  EXPECT_THROW(DampedPosition(DampedPositionOptions{.initial_weight = 0.0}), InputError);
  EXPECT_THROW(position->factor(at::zeros({3, 2})), c10::Error);
}

}  // namespace
}  // namespace mnemosyne::nn
