#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <string>
#include <utility>
#include <vector>

#include "mnemosyne/nn/linear_attention.h"
#include "mnemosyne/nn/point_encoder.h"
#include "mnemosyne/nn/softmax_attention.h"
#include "position_testing.h"
#include "testing.h"

namespace mnemosyne::nn {
namespace {

using testing::close;
using testing::gradients_agree;
using testing::randomise;
using Options = FourierPositionOptions;

/// Central differences of the gradient of function() in x, against its second derivative; the
/// gradient is read along a fixed direction.
::testing::AssertionResult second_derivatives_agree(const std::function<at::Tensor()>& function,
                                                    const at::Tensor& x) {
  at::manual_seed(11);
  const at::Tensor direction = at::randn_like(x);
  const auto slope = [&] {
    const at::AutoGradMode with_graph(true);
    const at::Tensor grad =
        torch::autograd::grad({function()}, {x}, {}, /*retain_graph=*/true, /*create_graph=*/true)
            .front();
    return (grad * direction).sum();
  };
  return gradients_agree([&] { return slope(); }, {x}, {1e-5, 1e-6});
}

/// Every kind of mask, with parameters that are nothing special.
std::vector<std::pair<std::string, Options>> kinds() {
  const Options base{.num_heads = 2,
                     .num_frequencies = 8,
                     .num_components = 2,
                     .max_width = 3.0,
                     .extent = 12.0,
                     .initial_amplitude = 0.8};
  std::vector<std::pair<std::string, Options>> list{{"mixture", base}};
  const auto add = [&](const std::string& name, const std::function<void(Options&)>& change) {
    Options options = base;
    change(options);
    list.emplace_back(name, options);
  };
  add("phase", [](Options& o) { o.phase = true; });
  add("plane", [](Options& o) { o.position_dim = 2; });
  add("radial", [](Options& o) { o.position_dim = 3, o.rotation_invariant = true; });
  for (const char* kernel : {"gaussian", "laplace", "matern"}) {
    add(kernel, [&](Options& o) { o.kind = "shift_invariant", o.kernel = kernel; });
  }
  for (const double nu : {0.5, 2.5}) {
    add("matern " + std::to_string(nu), [&](Options& o) {
      o.kind = "shift_invariant", o.kernel = "matern", o.matern_nu = nu, o.position_dim = 2;
    });
  }
  for (const char* window : {"dirichlet", "tent", "box"}) {
    add(window, [&](Options& o) { o.kind = "local", o.window = window; });
  }
  for (const char* window : {"tent", "box", "l2_ball", "l1_ball"}) {
    add(std::string(window) + " in the plane",
        [&](Options& o) { o.kind = "local", o.window = window, o.position_dim = 2; });
  }
  add("ball", [](Options& o) { o.kind = "local", o.window = "l2_ball", o.position_dim = 3; });
  add("neural", [](Options& o) { o.kind = "neural", o.phase = true; });
  add("bounded", [](Options& o) { o.max_bound = 0.3; });
  add("scaled", [](Options& o) { o.position_scale = 0.5; });
  add("released", [](Options& o) { o.released_code = true; });
  return list;
}

at::Tensor some_places(int64_t length, int64_t dim) {
  at::manual_seed(3);
  return (at::rand({length, dim}, at::kDouble) * 4.0).requires_grad_();
}

TEST(PositionGradient, MasksAndFactorsAreDifferentiableInOffsets) {
  for (const auto& [name, options] : kinds()) {
    SCOPED_TRACE(name);
    const FourierPosition position = testing::make_position(options);
    randomise(*position, 5, 0.2);
    const at::Tensor z = some_places(5, options.position_dim);
    at::manual_seed(4);
    const at::Tensor weight = at::randn({2, 5}, at::kDouble);
    for (const bool factor : {false, true}) {
      const auto total = [&] {
        return ((factor ? position->factor(z) : position->mask(z)) * weight).sum();
      };
      EXPECT_TRUE(gradients_agree(total, {z}));
      EXPECT_TRUE(second_derivatives_agree(total, z));
    }
  }
}

TEST(PositionGradient, FeaturesAreDifferentiableInPositions) {
  for (const auto& [name, base] : kinds()) {
    for (const char* factor : {"", "exp", "square", "linear"}) {
      Options options = base;
      if (factor[0] != '\0') {
        if (options.released_code) continue;
        options.coupling = "multiplicative";
        options.factor = factor;
      }
      SCOPED_TRACE(name + " " + factor);
      const FourierPosition position = testing::make_position(options);
      randomise(*position, 5, 0.2);
      const at::Tensor x = some_places(4, options.position_dim);
      at::manual_seed(4);
      const at::Tensor weight = at::randn({2, 4, 4}, at::kDouble);
      const auto total = [&] { return (testing::product(position->features(x)) * weight).sum(); };
      EXPECT_TRUE(gradients_agree(total, {x}));
      EXPECT_TRUE(second_derivatives_agree(total, x));
    }
  }
}

/// Every token is at offset zero from itself, and two may be at the same place.
TEST(PositionGradient, DerivativesAreFiniteAtOffsetZero) {
  for (const auto& [name, options] : kinds()) {
    SCOPED_TRACE(name);
    FourierPosition position = testing::make_position(options);
    randomise(*position, 5, 0.2);
    const at::Tensor x = some_places(4, options.position_dim).detach().clone();
    x[2] = x[0];
    x.requires_grad_();
    at::manual_seed(4);
    const at::Tensor weight = at::randn({2, 4, 4}, at::kDouble);
    const at::Tensor total = (position->factor(testing::offsets_of(x)) * weight).sum();
    const at::Tensor grad = torch::autograd::grad({total}, {x}, {}, true, true).front();
    ASSERT_TRUE(grad.isfinite().all().item<bool>());
    position->zero_grad();
    x.mutable_grad() = at::Tensor();
    grad.square().sum().backward();
    EXPECT_TRUE(x.grad().isfinite().all().item<bool>());
    for (const at::Tensor& parameter : position->parameters()) {
      EXPECT_TRUE(!parameter.grad().defined() || parameter.grad().isfinite().all().item<bool>());
    }
  }
}

/// Where the mask has a second derivative at zero, that one; by differences from both sides.
TEST(PositionGradient, SmoothMasksHaveTheirCurvatureAtOffsetZero) {
  for (const auto& [name, options] : kinds()) {
    const bool cusp = name == "laplace" || name.find("tent") == 0 || name == "dirichlet" ||
                      name == "matern " + std::to_string(0.5);
    if (cusp) continue;
    SCOPED_TRACE(name);
    const FourierPosition position = testing::make_position(options);
    randomise(*position, 5, 0.2);
    const at::Tensor zero = at::zeros({1, options.position_dim}, at::kDouble).requires_grad_();
    const at::Tensor slope =
        torch::autograd::grad({position->mask(zero).sum()}, {zero}, {}, true, true).front();
    const at::Tensor curvature =
        torch::autograd::grad({slope.select(1, 0).sum()}, {zero}).front().select(1, 0);
    const at::NoGradGuard no_grad;
    at::Tensor step = at::zeros_like(zero);
    step.select(1, 0).fill_(1e-4);
    const at::Tensor ends = position->mask(step).sum() + position->mask(-step).sum();
    EXPECT_TRUE(
        close(curvature.squeeze(), (ends - 2.0 * position->mask(zero).sum()) / 1e-8, {2e-3, 1e-4}));
  }
}

constexpr int64_t kWidth = 12, kHeads = 2, kLength = 5;

/// Forms of attention that see positions.
std::vector<std::pair<AttentionOptions, AttentionSite>> forms() {
  const AttentionSite line{.embed_dim = kWidth,
                           .num_heads = kHeads,
                           .causal = true,
                           .max_width = 3,
                           .extent = 24,
                           .seed = 0};
  AttentionSite space = line;
  space.causal = false;
  space.position_dim = 3;
  std::vector<std::pair<AttentionOptions, AttentionSite>> list;
  AttentionOptions options{.linear = {.feature_map = "relu", .num_features = 8}};
  options.fourier.num_frequencies = 8;
  for (const char* position : {"damped", "rope", "flt"}) {
    options.position = position;
    list.emplace_back(options, line);
  }
  options.fourier.phase = true;  // Without, waves tie, and rounding chooses.
  list.emplace_back(options, space);
  options.fourier.coupling = "concatenate";
  list.emplace_back(options, space);
  for (const char* map : {"favor+", "elu+1", "trig"}) {
    options.linear.feature_map = map;
    // Few signed features have denominators near zero, where differences say nothing.
    options.linear.num_features = map == std::string("trig") ? 256 : 8;
    list.emplace_back(options, line);
  }
  AttentionOptions exact{.linear = {.num_features = 8, .exact_length = 9}};
  exact.fourier.num_frequencies = 8;
  list.emplace_back(exact, space);
  for (const char* position : {"flt", "rope", "alibi", "damped"}) {
    const bool plain = position == std::string("damped");
    AttentionSite site = plain ? line : space;
    site.rotation_invariant = position == std::string("flt");
    list.emplace_back(AttentionOptions{.kind = "softmax", .position = position}, site);
  }
  return list;
}

std::string name_of(const AttentionOptions& o, const AttentionSite& site) {
  return o.kind + " " + o.linear.feature_map + " " + o.position + " " + o.fourier.coupling + " " +
         std::to_string(site.position_dim);
}

at::Tensor tokens(int64_t batch = 2) {
  at::manual_seed(1);
  return at::randn({batch, kLength, kWidth}, at::kDouble);
}

TEST(PositionGradient, AttentionIsDifferentiableInPositions) {
  for (const auto& [options, site] : forms()) {
    for (const bool per_example : {false, true}) {
      SCOPED_TRACE(name_of(options, site) + (per_example ? " [B,L,P]" : " [L,P]"));
      const auto attention = make_attention(options, site);
      attention->to(at::kDouble);
      randomise(*attention, 5, 0.1);
      at::manual_seed(3);
      at::Tensor r = at::rand({per_example ? 2 : 1, kLength, site.position_dim}, at::kDouble);
      r = site.causal ? r.cumsum(1) + 0.1 : r * 3.0;
      if (!per_example) r = r.squeeze(0);
      r = r.contiguous().requires_grad_();
      const at::Tensor x = tokens(), weight = at::randn_like(x);
      const auto total = [&] { return (attention->forward(x, {.positions = r}) * weight).sum(); };
      EXPECT_TRUE(gradients_agree(total, {r}));
      EXPECT_GT(r.grad().abs().max().item<double>(), 1e-6);
      EXPECT_TRUE(second_derivatives_agree(total, r));
    }
  }
}

TEST(PositionGradient, FloatAgreesWithDoubleInFirstAndSecondDerivatives) {
  for (const auto& [options, site] : forms()) {
    SCOPED_TRACE(name_of(options, site));
    at::manual_seed(3);
    at::Tensor where = at::rand({2, kLength, site.position_dim}, at::kDouble);
    where = site.causal ? where.cumsum(1) + 0.1 : where * 3.0;
    // Forces, and how a loss of the forces changes with positions and weights.
    const auto derivatives = [&](at::ScalarType type) {
      const auto attention = make_attention(options, site);
      if (type == at::kDouble) attention->to(at::kDouble);
      const at::Tensor r = where.to(type, false, /*copy=*/true).requires_grad_();
      const at::Tensor x = tokens().to(type);
      const at::Tensor energy = attention->forward(x, {.positions = r}).square().sum();
      const at::Tensor force = torch::autograd::grad({energy}, {r}, {}, true, true).front();
      force.square().sum().backward();
      return std::vector<at::Tensor>{energy, force, r.grad(), attention->query->weight.grad(),
                                     attention->value->weight.grad()};
    };
    const auto expected = derivatives(at::kDouble), actual = derivatives(at::kFloat);
    for (size_t i = 0; i < expected.size(); ++i) {
      const double size = expected[i].detach().abs().max().item<double>();
      EXPECT_GT(size, 0.0) << i;
      EXPECT_TRUE(close(actual[i], expected[i], {1e-3, 2e-4 * size})) << i;
    }
  }
}

TEST(PositionGradient, HiddenAndUnplacedTokensHaveNoneWhateverTheirPositions) {
  for (const auto& [options, site] : forms()) {
    SCOPED_TRACE(name_of(options, site));
    const auto attention = make_attention(options, site);
    attention->to(at::kDouble);
    at::manual_seed(3);
    at::Tensor r = at::rand({2, kLength, site.position_dim}, at::kDouble).cumsum(1);
    r.select(1, 2).fill_(std::numeric_limits<double>::quiet_NaN());
    r.requires_grad_();
    const at::Tensor has = at::arange(kLength) != 2;
    attention->forward(tokens(), {.positions = r, .has_position = has}).square().sum().backward();
    EXPECT_TRUE(r.grad().isfinite().all().item<bool>());
    EXPECT_EQ(r.grad().select(1, 2).abs().max().item<double>(), 0.0);
    for (const at::Tensor& parameter : attention->parameters()) {
      EXPECT_TRUE(parameter.grad().isfinite().all().item<bool>());
    }
  }
}

TEST(PositionGradient, SegmentsPassItOnThroughTheState) {
  for (const auto& [options, site] : forms()) {
    if (!site.causal || options.kind == "softmax") continue;
    SCOPED_TRACE(name_of(options, site));
    const auto attention = make_attention(options, site);
    attention->to(at::kDouble);
    randomise(*attention, 5, 0.1);
    at::manual_seed(3);
    const at::Tensor r = at::rand({2, kLength, 1}, at::kDouble).cumsum(1).requires_grad_();
    const at::Tensor x = tokens(), weight = at::randn_like(x);
    const auto gradient = [&](const at::Tensor& y) {
      return torch::autograd::grad({(y * weight).sum()}, {r}).front();
    };
    const auto& linear = dynamic_cast<const LinearAttentionImpl&>(*attention);
    LinearAttentionMemory memory;
    std::vector<at::Tensor> parts;
    for (const auto& [first, count] : {std::pair{0, 3}, std::pair{3, 2}}) {
      parts.push_back(linear.forward_segment(x.narrow(1, first, count), memory,
                                             {.positions = r.narrow(1, first, count)}));
    }
    EXPECT_TRUE(close(gradient(at::cat(parts, 1)),
                      gradient(attention->forward(x, {.positions = r})), {1e-7, 1e-8}));
  }
}

TEST(PositionGradient, RoundedOffsetsRefuse) {
  const auto attention =
      make_attention({.kind = "softmax", .position = "t5"},
                     {.embed_dim = kWidth, .num_heads = kHeads, .position_dim = 3});
  const at::Tensor r = at::rand({kLength, 3}), x = tokens().to(at::kFloat);
  EXPECT_NO_THROW(attention->forward(x, {.positions = r}));
  EXPECT_THROW(attention->forward(x, {.positions = r.clone().requires_grad_()}), c10::Error);
}

/// Forces of a model whose weights have moved, in every form, by differences of its energy.
TEST(PositionGradient, ForcesOfAPointEncoderAreTheDifferencesOfItsEnergy) {
  std::vector<AttentionOptions> attentions;
  for (const char* position : {"flt", "rope", "absolute"})
    attentions.push_back({.position = position});
  attentions.push_back({.linear = {.exact_length = 16}});
  attentions.push_back({.linear = {.feature_map = "favor+"}});
  attentions.back().fourier.coupling = "concatenate";
  for (const char* position : {"flt", "rope", "alibi", "absolute"}) {
    attentions.push_back({.kind = "softmax", .position = position});
  }
  const at::Tensor types = at::tensor({0, 1, 2, 1, 0, 0}, at::kLong).view({2, 3});
  const at::Tensor padding = at::tensor({1, 1, 1, 1, 1, 0}).view({2, 3}).to(at::kBool);
  for (const AttentionOptions& attention : attentions) {
    SCOPED_TRACE(attention.kind + " " + attention.position + " " + attention.fourier.coupling);
    PointEncoder model(PointEncoderOptions{
        .num_types = 3, .width = 12, .heads = 2, .layers = 2, .attention = attention});
    model->to(at::kDouble);
    randomise(*model, 7, 0.1);
    at::manual_seed(8);
    at::Tensor r = at::randn({2, 3, 3}, at::kDouble);
    r[1][2] = std::numeric_limits<double>::quiet_NaN();  // where there is no point
    r.requires_grad_();
    const at::Tensor where = r.detach().clone();
    EXPECT_TRUE(model->forward(types, r, padding).isfinite().all().item<bool>());
    torch::autograd::grad({model->forward(types, r, padding).sum()}, {r});
    at::Tensor leaf = where.nan_to_num(0.0).requires_grad_();
    const auto energy = [&] { return model->forward(types, leaf, padding).sum(); };
    EXPECT_TRUE(gradients_agree(energy, {leaf}));
    EXPECT_GT(leaf.grad().abs().max().item<double>(), 1e-6);
    EXPECT_EQ(leaf.grad()[1][2].abs().max().item<double>(), 0.0);
    EXPECT_TRUE(second_derivatives_agree(energy, leaf));
  }
}

}  // namespace
}  // namespace mnemosyne::nn
