#include "mnemosyne/ops/periodic_factor.h"

#include "mnemosyne/core/error.h"
#include "position_testing.h"
#include "testing.h"

namespace mnemosyne::ops {
namespace {

using nn::FourierPosition;
using testing::close;
using testing::gradients_agree;
using testing::line;
using testing::make_position;
using testing::offsets_of;
using testing::product;
using testing::randomise;

TEST(PeriodicFactor, FactorIsExactOnTheGridWithAllWavesAndBetterWithMore) {
  const at::Tensor x = line(17);
  double before = 1e9;
  for (const int64_t waves : {2, 4, 8, 16}) {
    const FourierPosition position = make_position({.num_heads = 2,
                                                    .coupling = "multiplicative",
                                                    .num_frequencies = waves,
                                                    .num_components = 4,
                                                    .max_width = 4.0,
                                                    .extent = 16.0,
                                                    .phase = true});
    randomise(*position, 9, 0.7);
    const at::Tensor exact = position->factor(offsets_of(x));
    const PositionFeatures features = position->features(x);
    EXPECT_EQ(features.query.size(-1), position->num_features());
    const double error = (product(features) - exact).square().sum().item<double>();
    EXPECT_LT(error, before);
    before = error;
    if (waves == 16) {
      EXPECT_LT(error, 1e-20);
    }
    const at::Tensor weight = at::randn({2, 17, 17}, at::kDouble);
    EXPECT_TRUE(gradients_agree([&] { return (product(position->features(x)) * weight).sum(); },
                                position->parameters()));
  }
}

TEST(PeriodicFactor, FactorInThePlaneAndInSpaceIsExactOnTheGrid) {
  for (const int64_t dim : {2, 3}) {
    const int64_t side = 3;
    const FourierPosition position = make_position({.position_dim = dim,
                                                    .coupling = "multiplicative",
                                                    .num_frequencies = 62,
                                                    .num_components = 2,
                                                    .max_width = 2.0,
                                                    .extent = 2.0});
    randomise(*position, 10, 0.5);
    const std::vector<at::Tensor> axes(static_cast<size_t>(dim), at::arange(side, at::kDouble));
    const at::Tensor x = at::stack(at::meshgrid(axes, "ij"), -1).reshape({-1, dim});
    EXPECT_EQ(position->num_features(), dim == 2 ? 25 : 125);
    EXPECT_TRUE(
        close(product(position->features(x)), position->factor(offsets_of(x)), {1e-9, 1e-9}));
  }
}

TEST(PeriodicFactor, KeepsTheLargestWavesAndTheMean) {
  const PeriodicGrid grid = periodic_grid(4.0, 0.5, 1);
  EXPECT_EQ(grid.offsets.sizes(), at::IntArrayRef({17, 1}));
  EXPECT_EQ(grid.frequencies.sizes(), at::IntArrayRef({8, 1}));
  const at::Tensor turn = grid.offsets.t() / 8.5;
  const at::Tensor values = 3.0 + 0.5 * (2.0 * M_PI * 2.0 * turn).cos() -
                            0.7 * (2.0 * M_PI * 5.0 * turn).sin() + 0.1 * (2.0 * M_PI * turn).cos();
  const PeriodicFactor factor = largest_waves(values, grid, 2);
  EXPECT_TRUE(close(factor.constant, at::tensor({3.0}, at::kDouble), {1e-12, 0.0}));
  EXPECT_TRUE(close(factor.sum.frequencies.view({-1}), at::tensor({5.0, 2.0}, at::kDouble) / 8.5,
                    {1e-12, 0.0}));
  EXPECT_TRUE(close(factor.sum.cosine[0], at::tensor({0.0, 0.5}, at::kDouble), {0.0, 1e-12}));
  EXPECT_TRUE(close(factor.sum.sine[0], at::tensor({-0.7, 0.0}, at::kDouble), {0.0, 1e-12}));
  EXPECT_THROW(periodic_grid(1000.0, 1.0, 2), InputError);
}

TEST(PeriodicFactor, SymmetryOnlySavesWork) {
  const at::Tensor frequency = at::tensor({0.11, -0.07, 0.19}, at::kDouble);
  for (const int64_t dim : {1, 2, 3}) {
    const PeriodicGrid full = periodic_grid(3.0, 0.75, dim);
    const PeriodicGrid half = periodic_grid(3.0, 0.75, dim, GridSymmetry::kEven);
    const PeriodicGrid radial = periodic_grid(3.0, 0.75, dim, GridSymmetry::kRadial);
    EXPECT_EQ(full.offsets.size(0), full.points.size(0));
    EXPECT_EQ(half.offsets.size(0), half.waves.size(0) + 1);
    EXPECT_LE(radial.offsets.size(0), 1 + dim * 16);
    const auto even = [&](const at::Tensor& z) {
      return (2.0 * M_PI * at::matmul(z, frequency.narrow(0, 0, dim))).cos().exp();
    };
    EXPECT_TRUE(close(even(half.offsets).index_select(0, half.points), even(full.offsets)));
    const auto round = [](const at::Tensor& z) { return (-z.square().sum(-1)).exp(); };
    EXPECT_TRUE(close(round(radial.offsets).index_select(0, radial.points), round(full.offsets)));
    EXPECT_TRUE(at::equal(radial.frequencies, full.frequencies));
  }
}

}  // namespace
}  // namespace mnemosyne::ops
