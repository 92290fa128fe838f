#include "mnemosyne/nn/position/position_spectrum.h"

#include "data/position_golden.h"
#include "mnemosyne/nn/position/frequency_draws.h"
#include "mnemosyne/nn/position/mixture_spectrum.h"
#include "mnemosyne/nn/position/neural_spectrum.h"
#include "mnemosyne/ops/position_window.h"
#include "position_testing.h"
#include "testing.h"

namespace mnemosyne::nn {
namespace {

using ops::WindowShape;
using testing::close;
using testing::Tolerance;

constexpr Tolerance kExact{1e-9, 1e-12};

template <size_t N>
at::Tensor recorded(const double (&values)[N], at::IntArrayRef shape) {
  return at::tensor(at::ArrayRef<double>(values, N), at::kDouble).reshape(shape);
}

// The inputs of make_position_golden.py.
at::Tensor offsets(int64_t dim) {
  const at::Tensor k = at::arange(5, at::kDouble);
  return at::stack({0.3 * k - 0.7, 0.1 * k * k - 0.5, 0.4 * k.sin()}, -1).narrow(1, 0, dim);
}

at::Tensor centres(int64_t dim) {
  const at::Tensor t = at::arange(3, at::kDouble);
  return at::stack({0.1 * t, 0.2 - 0.15 * t, 0.05 * t * t}, -1).narrow(1, 0, dim);
}

at::Tensor widths() { return at::tensor({0.8, 1.7}, at::kDouble); }

/// A mixture of three terms with the recorded parameters.
at::Tensor mixture_mask(FourierPositionOptions options) {
  options.num_components = 3;
  options.num_frequencies = 3;
  MixtureSpectrum spectrum(options);
  spectrum.to(at::kDouble);
  const at::NoGradGuard no_grad;
  spectrum.amplitude.copy_(at::tensor({0.7, -0.4, 0.2}, at::kDouble).unsqueeze(0));
  spectrum.log_sigma.copy_(at::tensor({0.05, 0.11, 0.3}, at::kDouble).unsqueeze(0).log());
  if (options.rotation_invariant) {
    spectrum.centre.copy_(at::tensor({0.1, 0.25, 0.4}, at::kDouble).unsqueeze(0));
  } else if (spectrum.centre.defined()) {
    spectrum.centre.copy_(centres(options.position_dim).unsqueeze(0));
  }
  if (options.phase) spectrum.phase.copy_(at::tensor({0.3, -0.5, 1.1}, at::kDouble).unsqueeze(0));
  return spectrum.mask(offsets(options.position_dim))[0];
}

TEST(PositionSpectrum, MixturesMatchRecordedValues) {
  using namespace golden;
  EXPECT_TRUE(close(mixture_mask({.position_dim = 2}), recorded(kMixture2, {5}), kExact));
  EXPECT_TRUE(close(mixture_mask({.position_dim = 3, .phase = true}), recorded(kMixturePhase3, {5}),
                    kExact));
  EXPECT_TRUE(close(mixture_mask({.position_dim = 3, .rotation_invariant = true}),
                    recorded(kShellMixture, {5}), kExact));
  FourierPositionOptions kernel{.position_dim = 2, .kind = "shift_invariant", .kernel = "laplace"};
  EXPECT_TRUE(close(mixture_mask(kernel), recorded(kLaplace, {5}), kExact));
  kernel.kernel = "matern";
  kernel.matern_nu = 0.5;
  EXPECT_TRUE(close(mixture_mask(kernel), recorded(kMatern05, {5}), kExact));
  kernel.matern_nu = 1.5;
  EXPECT_TRUE(close(mixture_mask(kernel), recorded(kMatern15, {5}), kExact));
  kernel.matern_nu = 2.5;
  EXPECT_TRUE(close(mixture_mask(kernel), recorded(kMatern25, {5}), kExact));
}

TEST(PositionSpectrum, SmoothedWindowsMatchRecordedValues) {
  const auto mask = [](WindowShape shape, int64_t dim) {
    return ops::window_mask(shape, offsets(dim), widths(), 0.25 * widths());
  };
  EXPECT_TRUE(close(mask(WindowShape::kL2Ball, 2), recorded(golden::kSmoothDisc, {5, 2}), kExact));
  EXPECT_TRUE(close(mask(WindowShape::kL2Ball, 3), recorded(golden::kSmoothBall, {5, 2}), kExact));
  EXPECT_TRUE(
      close(mask(WindowShape::kL1Ball, 2), recorded(golden::kSmoothL1Ball, {5, 2}), kExact));
  for (const auto shape : {WindowShape::kBox, WindowShape::kL2Ball, WindowShape::kL1Ball}) {
    EXPECT_TRUE(close(mask(shape, 1), recorded(golden::kSmoothInterval, {5, 2}), kExact));
  }
  const at::Tensor x = ops::window_mask(WindowShape::kBox, offsets(3), widths(), 0.25 * widths());
  at::Tensor product = at::ones_like(x);
  for (int64_t axis = 0; axis < 3; ++axis) {
    product = product * ops::window_mask(WindowShape::kBox, offsets(3).narrow(1, axis, 1), widths(),
                                         0.25 * widths());
  }
  EXPECT_TRUE(close(x, product, kExact));
}

TEST(PositionSpectrum, BallAtItsCentreIsTheLimit) {
  const at::Tensor near = at::tensor({0.0, 0.0, 0.0, 1e-4, 0.0, 0.0}, at::kDouble).view({2, 3});
  const at::Tensor value = ops::window_mask(WindowShape::kL2Ball, near, widths(), 0.25 * widths());
  EXPECT_TRUE(close(value[0], value[1], {1e-6, 0.0}));
}

TEST(PositionSpectrum, WindowTransformsMatchRecordedValues) {
  const auto spectrum = [](WindowShape shape, int64_t dim) {
    return ops::window_spectrum(shape, offsets(dim).unsqueeze(1), widths());
  };
  EXPECT_TRUE(
      close(spectrum(WindowShape::kL2Ball, 2), recorded(golden::kDiscSpectrum, {5, 2}), kExact));
  EXPECT_TRUE(
      close(spectrum(WindowShape::kL2Ball, 3), recorded(golden::kBallSpectrum, {5, 2}), kExact));
  EXPECT_TRUE(
      close(spectrum(WindowShape::kL1Ball, 2), recorded(golden::kL1BallSpectrum, {5, 2}), kExact));
  // At frequency zero the transform is the volume.
  const at::Tensor zero = at::zeros({1, 3}, at::kDouble), v = widths();
  EXPECT_TRUE(close(ops::window_spectrum(WindowShape::kL2Ball, zero, v),
                    4.0 / 3.0 * M_PI * v.pow(3), {1e-9, 0.0}));
}

TEST(PositionSpectrum, TentFrequenciesFollowTheSquaredSinc) {
  const at::Tensor draws = draw_frequencies({.law = FrequencyLaw::kFejer,
                                             .kind = DrawKind::kQuasiRandom,
                                             .groups = 1,
                                             .count = 20000})
                               .view({-1});
  const double levels[] = {0.55, 0.75, 0.9, 0.97, 0.995, 0.9999};
  for (size_t i = 0; i < 6; ++i) {
    const double below =
        (draws <= golden::kFejerQuantiles[i]).to(at::kDouble).mean().item<double>();
    EXPECT_NEAR(below, levels[i], 1.01 / 20000);
  }
}

TEST(PositionSpectrum, DrawsAreAFunctionOfTheSeed) {
  for (const auto kind : {DrawKind::kQuasiRandom, DrawKind::kOrthogonal, DrawKind::kIndependent}) {
    FrequencyDraws draws{.kind = kind, .groups = 2, .count = 5, .dim = 3, .seed = 4};
    const at::Tensor first = draw_frequencies(draws);
    EXPECT_TRUE(testing::identical(first, draw_frequencies(draws)));
    EXPECT_GT((first[0] - first[1]).abs().min().item<double>(), 0.0);
    draws.seed = 5;
    EXPECT_GT((first - draw_frequencies(draws)).abs().min().item<double>(), 0.0);
  }
  const at::Tensor rows =
      draw_frequencies({.kind = DrawKind::kOrthogonal, .groups = 1, .count = 3, .dim = 3})[0];
  EXPECT_TRUE(close(at::matmul(rows, rows.t()).triu(1), at::zeros({3, 3}), {0.0, 1e-12}));
}

TEST(PositionSpectrum, NeuralAmplitudeIsEvenAndPhaseIsOdd) {
  NeuralSpectrum spectrum(
      {.num_heads = 3, .position_dim = 2, .kind = "neural", .num_frequencies = 8, .phase = true});
  spectrum.to(at::kDouble);
  testing::randomise(spectrum, 3, 0.4);
  const at::Tensor xi = offsets(2);
  const auto [even, odd] = spectrum.spectrum(xi);
  const auto [mirrored_even, mirrored_odd] = spectrum.spectrum(-xi);
  EXPECT_TRUE(close(even, mirrored_even, kExact));
  EXPECT_TRUE(close(odd, -mirrored_odd, kExact));
  EXPECT_GT(odd.abs().max().item<double>(), 1e-2);
}

TEST(PositionSpectrum, NeuralSumEstimatesTheIntegralOverItsLaw) {
  // Another set of frequencies of the same law gives the same f within the error of sampling.
  const auto value = [](uint64_t seed) {
    NeuralSpectrum spectrum({.kind = "neural",
                             .num_frequencies = 100000,
                             .max_width = 16.0,
                             .initial_amplitude = 1.0,
                             .draws = "independent",
                             .phase = true,
                             .hidden = 4});
    const at::Tensor frequencies = NeuralSpectrum({.kind = "neural",
                                                   .num_frequencies = 100000,
                                                   .max_width = 16.0,
                                                   .draws = "independent",
                                                   .hidden = 4,
                                                   .seed = seed})
                                       .frequencies;
    const at::NoGradGuard no_grad;
    testing::randomise(spectrum, 5, 0.3);
    spectrum.frequencies.copy_(frequencies);
    return spectrum.mask(at::arange(4, at::kDouble).unsqueeze(-1) * 3.0);
  };
  const at::Tensor first = value(1), second = value(2);
  EXPECT_GT(first.abs().max().item<double>(), 0.1);
  EXPECT_TRUE(close(first, second, {0.0, 0.02}));
}

TEST(PositionSpectrum, PhasesMakeHeadsLookToDifferentSidesFromTheStart) {
  const MixtureSpectrum spectrum(
      {.num_heads = 2, .max_width = 4.0, .initial_amplitude = 1.0, .phase = true});
  const at::NoGradGuard no_grad;
  const at::Tensor z = at::arange(1, 5, at::kFloat).unsqueeze(-1);
  const at::Tensor slant = spectrum.mask(z) - spectrum.mask(-z);  // [2, 4]
  EXPECT_GT(slant.abs().amax(1).min().item<double>(), 0.05);
  EXPECT_GT((slant[0] - slant[1]).abs().max().item<double>(), 0.05);
}

}  // namespace
}  // namespace mnemosyne::nn
