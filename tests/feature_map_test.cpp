#include "mnemosyne/nn/feature_map.h"

#include "mnemosyne/core/error.h"
#include "testing.h"

namespace mnemosyne::nn {
namespace {

using ops::FeatureMapKind;
using testing::close;

constexpr int64_t kDim = 8;

/// One estimate of exp(x.y) for each of `count` independent vectors.
at::Tensor estimates(FeatureMapKind kind, const at::Tensor& x, const at::Tensor& y, int64_t count) {
  at::manual_seed(3);
  const at::Tensor omega = at::randn({count, kDim}, at::kDouble);
  at::Tensor terms = ops::feature_map(kind, x, omega) * ops::feature_map(kind, y, omega);
  if (terms.numel() == 2 * count) terms = terms.view({2, count}).sum(0);
  return terms * static_cast<double>(count);
}

/// Var of one vector's estimate, the three formulas of Performers (arXiv 2009.14794).
double variance(FeatureMapKind kind, const at::Tensor& x, const at::Tensor& y) {
  const double s = (x + y).square().sum().item<double>();
  const double d = (x - y).square().sum().item<double>();
  const double kernel = std::exp((x * y).sum().item<double>());
  if (kind == FeatureMapKind::kFavorPlus) {
    return std::exp(s) * kernel * kernel * (1 - std::exp(-s));
  }
  if (kind == FeatureMapKind::kHypPlus) {
    return std::exp(s) * kernel * kernel * std::pow(1 - std::exp(-s), 2) / 2;
  }
  return std::exp(s) / (kernel * kernel) * std::pow(1 - std::exp(-d), 2) / 2;
}

TEST(FeatureMap, EstimatesAreUnbiasedWithTheKnownVariance) {
  at::manual_seed(1);
  const at::Tensor x = at::randn({kDim}, at::kDouble) * 0.25;
  const at::Tensor y = at::randn({kDim}, at::kDouble) * 0.25;
  const double exact = std::exp((x * y).sum().item<double>());
  constexpr int64_t kCount = 400000;
  for (const auto& [kind, name, per_vector, estimates_kernel, exponential, positive] :
       ops::kFeatureMaps) {
    SCOPED_TRACE(name);
    if (per_vector == 0) continue;
    const at::Tensor terms = estimates(kind, x, y, kCount);
    const double expected = variance(kind, x, y);
    if (!estimates_kernel) {
      EXPECT_GT(std::abs(terms.mean().item<double>() - exact), 0.05 * exact);
      continue;
    }
    EXPECT_NEAR(terms.mean().item<double>(), exact, 4 * std::sqrt(expected / kCount));
    EXPECT_NEAR(terms.var().item<double>(), expected, 0.05 * expected);
  }
}

TEST(FeatureMap, HyperbolicBeatsExponentialAtEqualSize) {
  constexpr int64_t kFeatures = 16, kDraws = 20000;
  for (const double length : {0.25, 0.5, 1.0}) {
    at::Tensor x = at::zeros({kDim}, at::kDouble), y = at::zeros({kDim}, at::kDouble);
    x[0] = length;
    y[1] = length;  // exp(x.y) = 1, so that errors are relative ones
    const auto error = [&](FeatureMapKind kind, int64_t omegas) {
      const at::Tensor terms = estimates(kind, x, y, kDraws * omegas);
      return (terms.view({kDraws, omegas}).mean(1) - 1).square().mean().item<double>();
    };
    const double favor = error(FeatureMapKind::kFavorPlus, kFeatures);
    const double hyp = error(FeatureMapKind::kHypPlus, kFeatures / 2);
    EXPECT_LT(hyp, favor);
    // The ratio is 1 - exp(-|x + y|^2).
    EXPECT_NEAR(hyp / favor, 1 - std::exp(-2 * length * length), 0.25 * hyp / favor) << length;
  }
}

TEST(FeatureMap, OmegaIsOrthogonalInBlocksSeededAndOfTheRightLength) {
  const at::Tensor omega = draw_omega(20, kDim, 4);
  EXPECT_EQ(omega.sizes(), at::IntArrayRef({20, kDim}));
  for (const int64_t first : {0, 8}) {
    const at::Tensor block = omega.narrow(0, first, kDim);
    const at::Tensor gram = at::matmul(block, block.t());
    EXPECT_TRUE(close(gram - at::diag(gram.diagonal()), at::zeros_like(gram), {.atol = 1e-12}));
  }
  EXPECT_TRUE(testing::identical(omega, draw_omega(20, kDim, 4)));
  EXPECT_FALSE(testing::identical(omega, draw_omega(20, kDim, 5)));
  const at::Tensor many = draw_omega(4000, kDim, 1);
  EXPECT_NEAR(many.square().sum(1).mean().item<double>(), kDim, 0.3);
  EXPECT_TRUE(close(many.mean(0), at::zeros({kDim}, at::kDouble), {.atol = 0.08}));
}

TEST(FeatureMap, OrthogonalVectorsLowerTheError) {
  at::manual_seed(5);
  const at::Tensor x = at::randn({kDim}, at::kDouble) * 0.35;
  const at::Tensor y = at::randn({kDim}, at::kDouble) * 0.35;
  const double exact = std::exp((x * y).sum().item<double>());
  double orthogonal = 0.0, independent = 0.0;
  for (uint64_t seed = 0; seed < 1000; ++seed) {
    for (const bool blocks : {true, false}) {
      const at::Tensor omega =
          blocks ? draw_omega(kDim, kDim, seed) : at::randn({kDim, kDim}, at::kDouble);
      const FeatureMap phi(FeatureMapKind::kHypPlus, omega);
      const double error = (phi(x) * phi(y)).sum().item<double>() - exact;
      (blocks ? orthogonal : independent) += error * error;
    }
  }
  EXPECT_LT(orthogonal, 0.9 * independent);
}

TEST(FeatureMap, SizesFollowTheKind) {
  const at::Tensor x = at::rand({2, 3, 5}, at::kFloat);
  for (const std::string& name : feature_map_names()) {
    const int64_t features = name == "constant" ? 1 : 6;
    const FeatureMap phi({.name = name, .dim = 5, .num_features = features});
    EXPECT_EQ(phi(x).sizes(), at::IntArrayRef({2, 3, features})) << name;
    EXPECT_EQ(phi(x).scalar_type(), at::kFloat);
    EXPECT_EQ(phi.num_features(), features);
    if (name != "trig") {
      EXPECT_TRUE((phi(x) > 0).all().item<bool>()) << name;
    }
  }
}

TEST(FeatureMap, TheTableSaysWhatTheMapsDo) {
  at::manual_seed(4);
  const at::Tensor x = at::randn({50, kDim}, at::kDouble) * 2, omega = draw_omega(6, kDim, 2);
  const at::Tensor y = at::randn({50, kDim}, at::kDouble) * 2;
  for (const ops::FeatureMapTraits& map : ops::kFeatureMaps) {
    SCOPED_TRACE(map.name);
    EXPECT_EQ(&ops::traits_of(map.kind), &map);
    const auto phi = [&](const at::Tensor& at) { return ops::feature_map(map.kind, at, omega); };
    if (map.per_vector > 0) {
      EXPECT_EQ(phi(x).size(1), 6 * map.per_vector);
    } else {
      EXPECT_TRUE(at::equal(phi(x), ops::feature_map(map.kind, x, {}))) << "without vectors";
    }
    EXPECT_EQ(at::matmul(phi(x), phi(y).t()).min().item<double>() >= 0, map.positive);
    // Of exp(w.x) the logarithm is linear in x, but for what all features share.
    const auto exponents = [&](const at::Tensor& at) {
      const at::Tensor logs = phi(at).abs().log();
      return logs - logs.select(1, 0).unsqueeze(1);
    };
    const bool varies = phi(x).size(1) > 1;
    EXPECT_EQ(varies && close(exponents(2 * x), 2 * exponents(x)), map.exponential);
  }
}

TEST(FeatureMap, RefusesSizesThatItCannotHave) {
  EXPECT_THROW(FeatureMap({.name = "hyp+", .num_features = 3}), InputError);
  EXPECT_THROW(FeatureMap({.name = "trig", .num_features = 1}), InputError);
  EXPECT_THROW(FeatureMap({.name = "constant", .num_features = 2}), InputError);
  EXPECT_THROW(FeatureMap({.name = "favor+", .num_features = 0}), InputError);
  EXPECT_THROW(FeatureMap({.dim = 0}), InputError);
  EXPECT_THROW(FeatureMap({.name = "softmax"}), InputError);
  const FeatureMap phi({.dim = 4});
  EXPECT_THROW(phi(at::zeros({3})), c10::Error);
}

}  // namespace
}  // namespace mnemosyne::nn
