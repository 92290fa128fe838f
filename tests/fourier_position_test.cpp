#include "mnemosyne/nn/position/fourier_position.h"

#include <map>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/position/mixture_spectrum.h"
#include "position_testing.h"
#include "testing.h"

namespace mnemosyne::nn {
namespace {

using testing::close;
using testing::gradients_agree;
using testing::identical;
using testing::line;
using testing::make_position;
using testing::offsets_of;
using testing::product;
using testing::randomise;
using Options = FourierPositionOptions;

/// One of each kind, small, two heads.
const std::map<std::string, Options>& all_kinds() {
  static const std::map<std::string, Options> kinds = {
      {"mixture", {.num_heads = 2, .num_frequencies = 6, .num_components = 3, .max_width = 8.0}},
      {"phase",
       {.num_heads = 2,
        .position_dim = 2,
        .num_frequencies = 6,
        .num_components = 3,
        .max_width = 8.0,
        .phase = true}},
      {"shells",
       {.num_heads = 2,
        .position_dim = 3,
        .num_frequencies = 6,
        .num_components = 3,
        .max_width = 8.0,
        .rotation_invariant = true}},
      {"matern",
       {.num_heads = 2,
        .position_dim = 2,
        .kind = "shift_invariant",
        .num_frequencies = 6,
        .num_components = 3,
        .kernel = "matern",
        .max_width = 8.0}},
      {"dirichlet",
       {.num_heads = 2,
        .kind = "local",
        .num_frequencies = 6,
        .num_components = 2,
        .max_width = 4.0,
        .extent = 20.0}},
      {"disc",
       {.num_heads = 2,
        .position_dim = 2,
        .kind = "local",
        .num_frequencies = 6,
        .num_components = 2,
        .window = "l2_ball",
        .max_width = 4.0}},
      {"neural",
       {.num_heads = 2,
        .kind = "neural",
        .num_frequencies = 6,
        .max_width = 8.0,
        .phase = true,
        .hidden = 4}},
      {"released",
       {.num_heads = 2,
        .num_frequencies = 6,
        .num_components = 3,
        .initial_amplitude = 1.0,
        .released_code = true}},
  };
  return kinds;
}

at::Tensor some_positions(int64_t length, int64_t dim) {
  at::manual_seed(4);
  return at::randn({length, dim}, at::kDouble) * 3.0;
}

TEST(FourierPosition, MaskIsEvenExactlyWithoutAPhase) {
  for (const auto& [name, options] : all_kinds()) {
    const FourierPosition position = make_position(options);
    randomise(*position, 1, 0.3);
    const at::Tensor z = some_positions(7, options.position_dim);
    const at::Tensor f = product(position->features(z));
    const double asymmetry = (f - f.mT()).abs().max().item<double>();
    const double of_mask = (position->mask(z) - position->mask(-z)).abs().max().item<double>();
    if (options.phase) {
      EXPECT_GT(asymmetry, 1e-3) << name;
      EXPECT_GT(of_mask, 1e-3) << name;
    } else {
      EXPECT_LT(asymmetry, 1e-10) << name;
      EXPECT_LT(of_mask, 1e-10) << name;
    }
  }
}

TEST(FourierPosition, DirichletWindowIsExactWithAllWaves) {
  const FourierPosition position = make_position({.num_heads = 2,
                                                  .kind = "local",
                                                  .num_frequencies = 40,
                                                  .num_components = 3,
                                                  .max_width = 8.0,
                                                  .extent = 63.0,
                                                  .initial_amplitude = 1.0});
  randomise(*position, 2, 0.5);
  const at::Tensor x = line(64), exact = position->mask(offsets_of(x));
  EXPECT_EQ(position->num_features(), 74);  // 72 equispaced waves, 0 ... 36 of them distinct
  EXPECT_TRUE(close(product(position->features(x)), exact, {0.0, 1e-10}));
  EXPECT_NEAR(exact[0][0][8].item<double>(), exact[0][8][0].item<double>(), 0.0);
  EXPECT_EQ(exact[0][0][9].item<double>(), 0.0);
}

TEST(FourierPosition, GradientsOfMaskAndFeaturesAgreeWithDifferences) {
  for (const auto& [name, base] : all_kinds()) {
    for (const double max_bound : {0.0, 0.1}) {
      Options options = base;
      options.max_bound = max_bound;
      const FourierPosition position = make_position(options);
      randomise(*position, 3, 0.3);
      const at::Tensor x = some_positions(4, options.position_dim);
      at::manual_seed(8);
      const at::Tensor weight = at::randn({2, 4, 4}, at::kDouble);
      EXPECT_TRUE(gradients_agree([&] { return (position->mask(offsets_of(x)) * weight).sum(); },
                                  position->parameters()))
          << name << " mask";
      EXPECT_TRUE(gradients_agree([&] { return (product(position->features(x)) * weight).sum(); },
                                  position->parameters()))
          << name << " features";
    }
  }
}

TEST(FourierPosition, ZeroAmplitudeHasAGradientButNotInTheReleasedForm) {
  for (const auto& [name, base] : all_kinds()) {
    const FourierPosition position = make_position(base);
    const bool released = base.released_code;
    const bool neural = base.kind == "neural";
    at::Tensor amplitude =
        position->named_parameters()[neural ? "spectrum.weight2" : "spectrum.amplitude"];
    if (released) {
      const at::NoGradGuard no_grad;
      amplitude.zero_();
    }
    const ops::PositionFeatures features = position->features(some_positions(5, base.position_dim));
    EXPECT_EQ(product(features).abs().max().item<double>(), 0.0) << name;
    product(features).triu(1).sum().backward();
    ASSERT_TRUE(amplitude.grad().defined()) << name;
    const double size = amplitude.grad().abs().max().item<double>();
    EXPECT_TRUE(std::isfinite(size));
    EXPECT_EQ(size > 1e-3, !released) << name << ": " << size;
  }
}

TEST(FourierPosition, ShiftingAllPositionsChangesNothing) {
  for (const auto& [name, base] : all_kinds()) {
    for (const char* coupling : {"concatenate", "multiplicative"}) {
      Options options = base;
      if (options.released_code && std::string(coupling) == "multiplicative") continue;
      options.coupling = coupling;
      options.extent = options.window == "dirichlet" && options.kind == "local" ? 20.0 : 12.0;
      options.min_width = 1.0;
      const FourierPosition position = make_position(options);
      randomise(*position, 6, 0.3);
      const at::Tensor x = some_positions(6, options.position_dim);
      EXPECT_TRUE(close(product(position->features(x + 1000.0)), product(position->features(x)),
                        {1e-9, 1e-9}))
          << name;
    }
  }
}

TEST(FourierPosition, LongSequencesKeepTheirAnglesInFloat32) {
  FourierPosition position(Options{.num_frequencies = 16, .initial_amplitude = 1.0});
  const at::Tensor near = product(position->features(line(8)));
  const at::Tensor far = product(position->features(line(8) + 65536.0));
  EXPECT_TRUE(close(far, near, {0.0, 2e-6}));
  EXPECT_EQ(near.scalar_type(), at::kFloat);
}

TEST(FourierPosition, BoundHoldsAndCanBeEnforced) {
  for (const auto& [name, base] : all_kinds()) {
    Options options = base;
    const FourierPosition free = make_position(options);
    randomise(*free, 7, 2.0);
    const at::Tensor x = some_positions(6, options.position_dim);
    const at::Tensor bound = free->bound().view({-1, 1, 1});
    EXPECT_TRUE((product(free->features(x)).abs() <= bound + 1e-9).all().item<bool>()) << name;
    options.max_bound = 0.05;
    const FourierPosition held = make_position(options);
    randomise(*held, 7, 2.0);
    EXPECT_LE(held->bound().max().item<double>(), 0.05 + 1e-9) << name;
    EXPECT_TRUE(close(
        held->mask(x) / held->mask(x).abs().sum(),
        free->mask(x) * (held->bound() / free->bound()).unsqueeze(-1) / held->mask(x).abs().sum(),
        {1e-6, 1e-9}))
        << name;
  }
}

TEST(FourierPosition, SquareAndLinearFactorsAreThoseOfTheEstimate) {
  for (const char* factor : {"square", "linear"}) {
    Options options = all_kinds().at("phase");
    const FourierPosition plain = make_position(options);
    options.coupling = "multiplicative";
    options.factor = factor;
    const FourierPosition position = make_position(options);
    randomise(*plain, 11, 2.0);
    randomise(*position, 11, 2.0);
    const at::Tensor x = some_positions(5, 2), f = product(plain->features(x));
    const bool square = options.factor == "square";
    const at::Tensor h = product(position->features(x));
    EXPECT_TRUE(close(h, square ? (1.0 + f).square() : 1.0 + f, {1e-9, 1e-9}));
    EXPECT_EQ(h.min().item<double>() >= 0.0, square);
    EXPECT_EQ(position->features(x).key.size(-1), position->num_features());
  }
}

TEST(FourierPosition, TokensWithoutAPositionAreLeftAlone) {
  const at::Tensor has = at::tensor({1, 0, 1, 1, 0}).to(at::kBool);
  const at::Tensor both = has.unsqueeze(0).logical_and(has.unsqueeze(1));
  for (const auto& [name, base] : all_kinds()) {
    for (const char* factor : {"", "exp", "square", "linear"}) {
      Options options = base;
      const bool multiplies = factor[0] != '\0';
      if (multiplies && options.released_code) continue;
      if (multiplies) {
        options.coupling = "multiplicative";
        options.factor = factor;
        options.extent = 16.0;
      }
      const FourierPosition position = make_position(options);
      randomise(*position, 12, 0.3);
      const at::Tensor x = at::stack(
          {some_positions(5, options.position_dim), some_positions(5, options.position_dim) * 0.5});
      const ops::PositionFeatures all = position->features(x);
      const ops::PositionFeatures some = position->features(x, has);
      EXPECT_EQ(some.query.size(-1), position->num_features(true));
      const double off = multiplies ? 1.0 : 0.0;
      EXPECT_TRUE(close(product(some), at::where(both, product(all), off), {1e-9, 1e-9}))
          << name << " " << factor;
      EXPECT_TRUE(identical(position->features(x, has.expand({2, 5})).key, some.key));
    }
  }
}

TEST(FourierPosition, ReleasedCodePutsTheWholeRatioOnBothSides) {
  const Options options = all_kinds().at("released");
  const FourierPosition position = make_position(options);
  randomise(*position, 13, 0.3);
  const at::Tensor x = line(4);
  const ops::PositionFeatures features = position->features(x);
  EXPECT_TRUE(identical(features.query, features.key));
  auto parameters = position->named_parameters();
  const at::Tensor xi = position->named_buffers()["spectrum.frequencies"];  // [H, R, 1]
  const at::Tensor gap = (xi - parameters["spectrum.centre"].squeeze(-1).unsqueeze(1)).square();
  const at::Tensor g = (parameters["spectrum.amplitude"].unsqueeze(1) *
                        (-gap / parameters["spectrum.log_square"].exp().unsqueeze(1)).exp())
                           .sum(-1);
  const at::Tensor p = (-0.5 * xi.squeeze(-1).square()).exp() / std::sqrt(2.0 * M_PI);
  const at::Tensor angle = 2.0 * M_PI * at::matmul(x, xi.mT());
  const at::Tensor scale = (g / p / std::sqrt(6.0)).unsqueeze(1);
  EXPECT_TRUE(close(features.query, at::cat({scale * angle.cos(), scale * angle.sin()}, -1),
                    {1e-9, 1e-12}));
  // Logits (q.k + sqrt(d) f) / sqrt(d + 2 r).
  const at::Tensor q = at::randn({1, 2, 4, 5}, at::kDouble), k = at::randn_like(q);
  const auto [left, right] = position->join(q, k, features);
  EXPECT_TRUE(close(at::matmul(left, right.mT()),
                    (at::matmul(q, k.mT()) + std::sqrt(5.0) * product(features)) / std::sqrt(17.0),
                    {1e-12, 1e-12}));
}

TEST(FourierPosition, WidthsAreLogSpacedAndCountInScaledPositions) {
  const FourierPosition position = make_position({.num_frequencies = 3,
                                                  .num_components = 3,
                                                  .min_width = 1.0,
                                                  .max_width = 16.0,
                                                  .position_scale = 2.0,
                                                  .initial_amplitude = 1.0});
  const auto& spectrum = dynamic_cast<const MixtureSpectrum&>(position->spectrum());
  const at::Tensor width = (-spectrum.log_sigma).exp() / (2.0 * M_PI);
  EXPECT_TRUE(close(width, at::tensor({1.0, 4.0, 16.0}, at::kDouble).unsqueeze(0), {1e-6, 0.0}));
  const FourierPosition unscaled = make_position({.num_frequencies = 3,
                                                  .num_components = 3,
                                                  .min_width = 1.0,
                                                  .max_width = 16.0,
                                                  .initial_amplitude = 1.0});
  EXPECT_TRUE(close(position->mask(line(5)), unscaled->mask(line(5) * 2.0), {1e-12, 1e-12}));
}

TEST(FourierPosition, CopiesAndStatesByNameAreTheSameEncoding) {
  for (const auto& [name, options] : all_kinds()) {
    const FourierPosition source = make_position(options);
    randomise(*source, 14, 0.3);
    const at::Tensor x = some_positions(4, options.position_dim);
    const at::Tensor expected = source->features(x).key;
    const auto copy = std::dynamic_pointer_cast<FourierPositionImpl>(source->clone());
    EXPECT_TRUE(identical(copy->features(x).key, expected)) << name;
    Options other = options;
    other.seed = 99;
    const FourierPosition target = make_position(other);
    EXPECT_FALSE(close(target->features(x).key, expected)) << name;
    const at::NoGradGuard no_grad;
    auto parameters = target->named_parameters(), buffers = target->named_buffers();
    for (const auto& item : source->named_parameters()) parameters[item.key()].copy_(item.value());
    for (const auto& item : source->named_buffers()) buffers[item.key()].copy_(item.value());
    EXPECT_TRUE(identical(target->features(x).key, expected)) << name;
    randomise(*copy, 15, 0.3);
    EXPECT_TRUE(identical(source->features(x).key, expected)) << name;
  }
}

void expect_refused(const Options& options, const std::string& words) {
  try {
    const FourierPosition position(options);
    ADD_FAILURE() << "accepted: " << words;
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
  }
}

TEST(FourierPosition, RefusesWhatItCannotDo) {
  expect_refused({.kind = "wavelet"}, "[kind] expected one of gaussian_mixture");
  expect_refused({.coupling = "add"}, "[coupling] expected one of concatenate, multiplicative");
  expect_refused({.factor = "cube"}, "[factor] expected one of exp, square, linear");
  expect_refused({.num_frequencies = 30}, "[num_frequencies] expected a multiple of");
  expect_refused({.num_heads = 0}, "[num_heads]");
  expect_refused({.kind = "shift_invariant", .kernel = "cubic"}, "[kernel] expected one of");
  expect_refused({.kind = "shift_invariant", .kernel = "matern", .matern_nu = 1.0}, "[matern_nu]");
  expect_refused({.kind = "local", .window = "hann"}, "[window] expected one of");
  expect_refused({.position_dim = 2, .kind = "local", .window = "dirichlet"},
                 "position_dim <= 1 for dirichlet, got 2");
  expect_refused({.position_dim = 4, .kind = "local", .window = "l2_ball"}, "position_dim <= 3");
  expect_refused({.position_dim = 3, .kind = "local", .window = "l1_ball"}, "position_dim <= 2");
  expect_refused({.kind = "local", .window = "box", .smoothing = 0.0}, "[smoothing]");
  expect_refused({.min_width = 3.0, .max_width = 2.0}, "0 < min_width <= max_width");
  expect_refused({.draws = "sobol"}, "[draws] expected one of");
  expect_refused({.kind = "shift_invariant", .kernel = "laplace", .draws = "orthogonal"},
                 "[draws] expected quasi_random or independent");
  expect_refused({.kind = "local", .phase = true}, "[phase]");
  expect_refused({.position_dim = 2, .rotation_invariant = true}, "[rotation_invariant]");
  expect_refused({.released_code = true}, "[initial_amplitude]");
  expect_refused({.coupling = "multiplicative", .released_code = true}, "[released_code]");
  expect_refused({.position_dim = 4, .coupling = "multiplicative"}, "grid of at most 2^18");
  const FourierPosition position = make_position({});
  EXPECT_THROW(position->mask(at::zeros({4, 2})), c10::Error);
  EXPECT_THROW(position->features(at::zeros({4})), c10::Error);
}

}  // namespace
}  // namespace mnemosyne::nn
