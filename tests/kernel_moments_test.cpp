#include "mnemosyne/nn/theory/kernel_moments.h"

#include <cmath>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/theory/kernel_error.h"
#include "mnemosyne/nn/theory/vectors.h"
#include "testing.h"

namespace mnemosyne::nn {
namespace {

using testing::close;

const std::vector<std::string> kMaps = {"trig", "hyp+", "favor+"};

/// The variances as they are usually written: with the kernel K, s = |x+y|^2 and d = |x-y|^2.
at::Tensor written_variance(const std::string& map, const at::Tensor& x, const at::Tensor& y) {
  const at::Tensor s = (x + y).square().sum(-1), d = (x - y).square().sum(-1);
  const at::Tensor kernel = (x * y).sum(-1).exp();
  if (map == "favor+") return s.exp() * kernel.square() * (1 - (-s).exp());
  if (map == "hyp+") return s.exp() * kernel.square() * (1 - (-s).exp()).square() / 2;
  return s.exp() / kernel.square() * (1 - (-d).exp()).square() / 2;
}

TEST(KernelMoments, TheirDiagonalIsTheVarianceThatIsKnown) {
  at::manual_seed(1);
  const at::Tensor x = at::randn({6, 5}, at::kDouble) * 0.5;
  const at::Tensor y = at::randn({6, 5}, at::kDouble) * 0.5;
  for (const std::string& map : kMaps) {
    SCOPED_TRACE(map);
    const ops::FeatureMapKind kind = estimating_kind(map);
    const at::Tensor variance = estimate_variance(kind, x, y);
    EXPECT_TRUE(close(variance, written_variance(map, x, y), {.rtol = 1e-12, .atol = 0}));
    const at::Tensor moments = estimate_moments(kind, x, y);
    const at::Tensor kernel = (x * y).sum(-1).exp();
    EXPECT_TRUE(close(moments.diagonal() - kernel.square(), variance, {.rtol = 1e-10}));
    EXPECT_TRUE(close(moments, moments.t(), {.rtol = 1e-12}));
  }
}

TEST(KernelMoments, ASumOfEstimatesHasTheMeanAndVarianceOfTheFormula) {
  at::manual_seed(2);
  constexpr int64_t kTerms = 6, kDim = 4, kVectors = 200000;
  const at::Tensor x = at::randn({kTerms, kDim}, at::kDouble) * 0.3;
  const at::Tensor y = at::randn({kTerms, kDim}, at::kDouble) * 0.3;
  const at::Tensor a = at::randn({2, kTerms}, at::kDouble);
  const at::Tensor omega = at::randn({kVectors, kDim}, at::kDouble);
  for (const std::string& map : kMaps) {
    SCOPED_TRACE(map);
    const ops::FeatureMapKind kind = estimating_kind(map);
    at::Tensor terms = ops::feature_map(kind, x, omega) * ops::feature_map(kind, y, omega);
    // Both features of a vector together, [J, vectors].
    terms = kVectors * terms.view({kTerms, -1, kVectors}).sum(1);
    const at::Tensor sums = at::matmul(a, terms);
    const SumOfEstimates known = sum_of_estimates(kind, a, x, y);
    const at::Tensor far = (sums.mean(1) - known.mean).abs();
    EXPECT_TRUE((far <= 4 * (known.variance / kVectors).sqrt()).all().item<bool>());
    // The variance of a sample is off by its own deviation, taken from the sample's fourth moment.
    const at::Tensor centred = sums - sums.mean(1, /*keepdim=*/true);
    const at::Tensor variance = centred.square().mean(1);
    const at::Tensor fourth = centred.square().square().mean(1);
    const at::Tensor deviation = ((fourth - variance.square()) / kVectors).sqrt();
    EXPECT_TRUE(((variance - known.variance).abs() <= 4 * deviation).all().item<bool>())
        << variance << known.variance << deviation;
    EXPECT_LT((deviation / known.variance).max().item<double>(), 0.05);
  }
}

TEST(KernelMoments, AreKnownOnlyForMapsThatEstimateTheKernel) {
  for (const std::string name : {"relu", "constant", "softmax"}) {
    EXPECT_THROW(estimating_kind(name), InputError);
  }
  const at::Tensor x = at::zeros({2, 3}, at::kDouble);
  EXPECT_THROW(estimate_variance(ops::FeatureMapKind::kRelu, x, x), InputError);
  EXPECT_THROW(estimate_moments(ops::FeatureMapKind::kConstant, x, x), InputError);
}

TEST(KernelError, IsUnbiasedAndAsLargeAsTheFormulaSays) {
  for (const std::string& map : kMaps) {
    for (const double length : {0.25, 0.7}) {
      SCOPED_TRACE(map + " " + std::to_string(length));
      const KernelError error = measure_kernel_error(
          {.feature_map = map, .length = length, .draws = 2000, .independent_vectors = true});
      EXPECT_LT(std::abs(error.bias), 4 * error.bias_deviation);
      EXPECT_LT(error.bias_deviation, 0.01);
      EXPECT_LT(std::abs(error.squared - error.predicted), 4 * error.squared_deviation);
      EXPECT_LT(error.squared_deviation, 0.1 * error.predicted);
    }
  }
}

TEST(KernelError, HyperbolicFeaturesAreNoWorseAtEqualSizeAndOrthogonalOnesBetter) {
  for (const double length : {0.25, 0.5, 0.75, 1.0}) {
    KernelErrorOptions options{.feature_map = "favor+", .length = length, .draws = 1000};
    const KernelError favor = measure_kernel_error(options);
    options.feature_map = "hyp+";
    const KernelError hyp = measure_kernel_error(options);
    EXPECT_LT(hyp.predicted, favor.predicted) << length;
    EXPECT_LT(hyp.squared, favor.squared) << length;
    EXPECT_LT(hyp.squared, hyp.predicted - 4 * hyp.squared_deviation) << length;
  }
  // At one point the ratio is 1 - e^-s.
  const at::Tensor x = at::full({1, 4}, 0.2, at::kDouble);
  const at::Tensor ratio = estimate_variance(ops::FeatureMapKind::kHypPlus, x, x) * 2 /
                           estimate_variance(ops::FeatureMapKind::kFavorPlus, x, x);
  EXPECT_NEAR(ratio.item<double>(), 1 - std::exp(-4 * 0.16), 1e-12);
}

TEST(KernelError, RefusesWhatCannotBeMeasured) {
  EXPECT_THROW(measure_kernel_error({.feature_map = "relu"}), InputError);
  EXPECT_THROW(measure_kernel_error({.features = 15}), InputError);
  EXPECT_THROW(measure_kernel_error({.length = -1}), InputError);
  EXPECT_THROW(measure_kernel_error({.draws = 1}), InputError);
  EXPECT_THROW(measure_kernel_error({.pairs = 0}), InputError);
}

}  // namespace
}  // namespace mnemosyne::nn
