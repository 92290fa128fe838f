#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/attention_options.h"
#include "mnemosyne/nn/causal_lm.h"
#include "mnemosyne/nn/linear_attention.h"
#include "mnemosyne/nn/point_encoder.h"
#include "mnemosyne/nn/softmax_attention.h"
#include "position_testing.h"
#include "testing.h"

namespace mnemosyne::nn {
namespace {

using testing::close;
using testing::line;
using testing::product;
using Options = FourierPositionOptions;

/// What the exception of `call` says; empty without one.
std::string refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

void expect_refused(const std::function<void()>& call, const std::string& offset,
                    const std::string& extent) {
  const std::string said = refusal(call);
  EXPECT_NE(said.find("offsets of at most " + extent + ", the extent, got " + offset),
            std::string::npos)
      << "\"" << said << "\"";
  EXPECT_EQ(said.find('\n'), std::string::npos) << said;
}

/// Waves that repeat: of the factor "exp", and of equispaced windows whatever the coupling.
std::vector<Options> periodic() {
  const Options exp{.coupling = "multiplicative",
                    .num_frequencies = 16,
                    .max_width = 4.0,
                    .extent = 8.0,
                    .initial_amplitude = 1.0};
  Options window = exp;
  window.kind = "local";
  window.num_components = 2;
  std::vector<Options> list{exp, window};
  window.coupling = "concatenate";
  list.push_back(window);
  window.coupling = "multiplicative";
  for (const char* factor : {"square", "linear"}) {
    window.factor = factor;
    list.push_back(window);
  }
  return list;
}

TEST(PositionExtent, FeaturesBeyondItAreRefusedWithOffsetAndExtent) {
  for (const Options& options : periodic()) {
    const FourierPosition position = testing::make_position(options);
    EXPECT_EQ(refusal([&] { position->features(line(9) + 100.0); }), "");
    expect_refused([&] { position->features(line(10)); }, "9", "8");
    const at::Tensor has = at::arange(10) != 4;
    expect_refused([&] { position->features(line(10), has); }, "9", "8");
    EXPECT_EQ(refusal([&] { position->features(line(10), at::arange(10) != 9); }), "");
    // Per example: each on its own place is fine.
    const at::Tensor apart = at::stack({line(9), line(9) + 1000.0});
    EXPECT_EQ(refusal([&] { position->features(apart); }), "");
    // Exact masks have no extent.
    EXPECT_TRUE(position->factor(line(100)).isfinite().all().item<bool>());
  }
  Options scaled = periodic()[0];
  scaled.position_scale = 0.5;
  const FourierPosition half = testing::make_position(scaled);
  EXPECT_EQ(refusal([&] { half->features(line(17)); }), "");
  expect_refused([&] { half->features(line(18)); }, "8.5", "8");
}

TEST(PositionExtent, EveryAxisHasIt) {
  for (const int64_t dim : {2, 3}) {
    Options options = periodic()[0];
    options.position_dim = dim;
    const FourierPosition position = testing::make_position(options);
    for (int64_t axis = 0; axis < dim; ++axis) {
      at::Tensor x = at::zeros({3, dim}, at::kDouble);
      x[1][axis] = -4.0;
      x[2][axis] = 4.0;
      EXPECT_EQ(refusal([&] { position->features(x); }), "");
      x[2][axis] = 4.5;
      expect_refused([&] { position->features(x); }, "8.5", "8");
    }
  }
}

TEST(PositionExtent, DrawnWavesHaveNone) {
  for (const char* factor : {"", "square"}) {
    Options options{.extent = 8.0, .initial_amplitude = 1.0};
    if (factor[0] != '\0') options.coupling = "multiplicative", options.factor = factor;
    EXPECT_EQ(refusal([&] { testing::make_position(options)->features(line(100)); }), "");
    options.kind = "local";
    options.draws = "independent";
    EXPECT_EQ(refusal([&] { testing::make_position(options)->features(line(100)); }), "");
  }
}

TEST(PositionExtent, NoneGrowsWithTheInput) {
  Options options = periodic()[0];
  options.extent = std::nullopt;
  options.num_frequencies = 4000;  // All waves: the factor itself at multiples of min_width.
  for (const int64_t dim : {1, 2}) {
    options.position_dim = dim;
    const FourierPosition position = testing::make_position(options);
    testing::randomise(*position, 3, 0.2);
    for (const int64_t length : {40, 3, 1, 25}) {
      at::Tensor x = line(length).repeat({1, dim});
      EXPECT_TRUE(close(product(position->features(x)), position->factor(testing::offsets_of(x)),
                        {1e-9, 1e-9}))
          << dim << " " << length;
    }
    const at::Tensor alike = at::zeros({3, dim}, at::kDouble);
    EXPECT_TRUE(close(product(position->features(alike)),
                      position->factor(testing::offsets_of(alike)), {1e-6, 1e-6}));
  }
  // As with the same extent given.
  options.position_dim = 1;
  options.num_frequencies = 8;
  const FourierPosition growing = testing::make_position(options);
  options.extent = 30.0;
  const FourierPosition fixed = testing::make_position(options);
  EXPECT_TRUE(
      testing::identical(growing->features(line(31)).query, fixed->features(line(31)).query));
  EXPECT_THROW(growing->features(line(2) * 1e6), InputError) << "a grid too large";
  options.extent = std::nullopt;
  options.kind = "local";
  options.num_components = 2;
  options.coupling = "concatenate";
  EXPECT_NE(refusal([&] { testing::make_position(options); }).find("[extent]"), std::string::npos);
}

constexpr int64_t kWidth = 8;

at::Tensor tokens(int64_t length) {
  at::manual_seed(1);
  return at::randn({2, length, kWidth});
}

LinearAttention make(bool causal, const Options& mask) {
  return LinearAttention(LinearAttentionOptions{
      .embed_dim = kWidth, .num_heads = 2, .num_features = 8, .causal = causal, .position = mask});
}

TEST(PositionExtent, AttentionRefusesWhatIsBeyond) {
  for (const Options& options : periodic()) {
    for (const bool causal : {false, true}) {
      const LinearAttention attention = make(causal, options);
      EXPECT_EQ(refusal([&] { attention->forward(tokens(9)); }), "");
      expect_refused([&] { attention->forward(tokens(10)); }, "9", "8");
      expect_refused([&] { attention->forward(tokens(300)); }, "299", "8");
      at::Tensor far = line(5).clone();
      far[4] = -20.0;
      expect_refused([&] { attention->forward(tokens(5), {.positions = far}); }, "23", "8");
    }
  }
}

TEST(PositionExtent, PaddingAndTokensThatAreNowhereDoNotCount) {
  const LinearAttention attention = make(false, periodic()[0]);
  const at::Tensor mask = (at::arange(12) < 9).expand({2, -1});
  EXPECT_EQ(refusal([&] { attention->forward(tokens(12), {.key_padding_mask = mask}); }), "");
  at::Tensor one = mask.clone();
  one[1][11] = true;
  expect_refused([&] { attention->forward(tokens(12), {.key_padding_mask = one}); }, "11", "8");
  at::Tensor far = line(5).clone();
  far[4] = 1e6;
  const AttentionInputs nowhere{.positions = far, .has_position = at::arange(5) != 4};
  EXPECT_EQ(refusal([&] { attention->forward(tokens(5), nowhere); }), "");
  const at::Tensor none = at::zeros({2, 5}, at::kBool);
  EXPECT_EQ(
      refusal([&] { attention->forward(tokens(5), {.positions = far, .key_padding_mask = none}); }),
      "");
}

TEST(PositionExtent, AContextCountsFromTheQueries) {
  const LinearAttention attention = make(false, periodic()[0]);
  const at::Tensor context = tokens(9);
  const auto at_place = [&](double place) {
    return refusal([&] {
      attention->forward(tokens(1),
                         {.positions = at::full({1, 1}, place, at::kDouble), .context = context});
    });
  };
  EXPECT_EQ(at_place(4.0), "");
  EXPECT_EQ(at_place(8.0), "");
  EXPECT_NE(at_place(9.0).find("got 9"), std::string::npos);
  EXPECT_NE(at_place(-1.0).find("got 9"), std::string::npos);
  // Queries may be further apart than the extent, as long as no key is.
  at::Tensor ends = at::tensor({-4.0, 12.0}, at::kDouble).unsqueeze(-1);
  EXPECT_EQ(refusal([&] {
              attention->forward(tokens(2),
                                 {.positions = ends,
                                  .context = context.narrow(1, 0, 1),
                                  .context_positions = at::full({1, 1}, 4.0, at::kDouble)});
            }),
            "");
}

TEST(PositionExtent, SegmentsAndStepsCountEarlierKeys) {
  for (const Options& options : periodic()) {
    const LinearAttention attention = make(true, options);
    const at::Tensor x = tokens(12);
    LinearAttentionMemory memory;
    for (int64_t t = 0; t < 9; ++t) attention->step(x.select(1, t), memory);
    const LinearAttentionMemory before = memory;
    expect_refused([&] { attention->step(x.select(1, 9), memory); }, "9", "8");
    EXPECT_EQ(memory.length, before.length);
    // Positions of one's own, per example.
    LinearAttentionMemory placed;
    const at::Tensor r = at::stack({line(4), line(4) + 50.0});
    attention->forward_segment(x.narrow(1, 0, 4), placed, {.positions = r});
    EXPECT_EQ(refusal([&] {
                LinearAttentionMemory copy = placed;
                attention->forward_segment(x.narrow(1, 4, 4), copy, {.positions = r + 4.0});
              }),
              "");
    expect_refused(
        [&] { attention->forward_segment(x.narrow(1, 4, 4), placed, {.positions = r + 6.0}); }, "9",
        "8");
  }
  Options growing = periodic()[0];
  growing.extent = std::nullopt;
  LinearAttentionMemory memory;
  const LinearAttention attention = make(true, growing);
  EXPECT_EQ(refusal([&] { attention->forward(tokens(40)); }), "");
  EXPECT_THROW(attention->forward_segment(tokens(3), memory), InputError);
}

TEST(PositionExtent, ExactMasksReachAnywhere) {
  const at::Tensor x = tokens(60);
  LinearAttentionOptions exact{.embed_dim = kWidth,
                               .num_heads = 2,
                               .num_features = 8,
                               .position = periodic()[0],
                               .exact_length = 100};
  EXPECT_EQ(refusal([&] { LinearAttention(exact)->forward(x); }), "");
  exact.position = FftMaskOptions{.mask = periodic()[0]};
  EXPECT_EQ(refusal([&] { LinearAttention(exact)->forward(x); }), "");
  const SoftmaxAttention softmax(
      SoftmaxAttentionOptions{.embed_dim = kWidth, .num_heads = 2, .position = periodic()[0]});
  EXPECT_EQ(refusal([&] { softmax->forward(x); }), "");
}

TEST(PositionExtent, PointsBeyondThatOfTheEncoderAreRefusedOrGrown) {
  PointEncoderOptions options{.num_types = 2, .width = 8, .heads = 2, .layers = 1, .extent = 4.0};
  const at::Tensor types = at::zeros({1, 3}, at::kLong);
  at::Tensor r = at::zeros({1, 3, 3});
  r[0][1][2] = 5.0;
  const PointEncoder fixed(options);
  expect_refused([&] { fixed->forward(types, r); }, "5", "4");
  const at::Tensor padding = at::tensor({1, 0, 1}).to(at::kBool).unsqueeze(0);
  EXPECT_EQ(refusal([&] { fixed->forward(types, r, padding); }), "");
  options.extent = std::nullopt;
  EXPECT_TRUE(PointEncoder(options)->forward(types, r).isfinite().all().item<bool>());
}

TEST(PositionExtent, LocalMasksWorkInEveryDimensionAsTheyAre) {
  for (const int64_t dim : {1, 2, 3}) {
    FourierPosition position(
        Options{.num_heads = 2, .position_dim = dim, .kind = "local", .initial_amplitude = 1.0});
    position->to(at::kDouble);
    at::manual_seed(2);
    const at::Tensor x = at::randint(-3, 4, {5, dim}, at::kDouble);
    EXPECT_EQ(position->features(x).query.sizes(), at::IntArrayRef({2, 5, 64}));
    // A window is 1 in its middle and falls off: f(0) is the sum of amplitudes, or almost.
    const at::Tensor origin = at::zeros({1, dim}, at::kDouble);
    EXPECT_TRUE(close(position->mask(origin), at::ones({2, 1}), {0, dim == 1 ? 1e-9 : 1e-3}));
    EXPECT_LT(position->mask(origin + 200.0).abs().max().item<double>(), 1e-9);
  }
  const Options line{.kind = "local", .window = "dirichlet"};
  EXPECT_TRUE(
      testing::identical(testing::make_position({.kind = "local"})->features(testing::line(9)).key,
                         testing::make_position(line)->features(testing::line(9)).key));
  EXPECT_NE(
      refusal([] { FourierPosition(Options{.kind = "local", .window = "disc"}); }).find("auto"),
      std::string::npos);
}

}  // namespace
}  // namespace mnemosyne::nn
