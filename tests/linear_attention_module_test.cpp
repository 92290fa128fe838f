#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/attention_options.h"
#include "mnemosyne/nn/linear_attention.h"
#include "mnemosyne/nn/softmax_attention.h"
#include "mnemosyne/ops/feature_map.h"
#include "mnemosyne/ops/masked_attention.h"
#include "position_testing.h"
#include "testing.h"

namespace mnemosyne::nn {
namespace {

using testing::close;
using testing::damped_of;
using testing::fourier_of;
using testing::randomise;

constexpr int64_t kWidth = 16, kHeads = 4, kLength = 9;

AttentionSite site(bool causal, int64_t dim = 1) {
  return {.embed_dim = kWidth,
          .num_heads = kHeads,
          .causal = causal,
          .position_dim = dim,
          .max_width = 4,
          .extent = 24,
          .grid = dim == 2 ? std::vector<int64_t>{3, 3} : std::vector<int64_t>{kLength},
          .seed = 3};
}

/// In float64, with parameters that are nothing special.
std::shared_ptr<Attention> make(const AttentionOptions& options, const AttentionSite& where) {
  std::shared_ptr<Attention> attention = make_attention(options, where);
  attention->to(at::kDouble);
  randomise(*attention, 5, 0.1);
  return attention;
}

at::Tensor tokens(int64_t batch = 2, int64_t length = kLength, uint64_t seed = 1) {
  at::manual_seed(seed);
  return at::randn({batch, length, kWidth}, at::kDouble);
}

const LinearAttentionImpl& linear(const std::shared_ptr<Attention>& attention) {
  return dynamic_cast<const LinearAttentionImpl&>(*attention);
}

std::vector<AttentionOptions> causal_forms() {
  std::vector<AttentionOptions> forms;
  for (const char* map : {"favor+", "hyp+", "trig", "relu", "elu+1"}) {
    AttentionOptions plain{.linear = {.feature_map = map, .num_features = 8}};
    plain.fourier.num_frequencies = 4;
    plain.fourier.initial_amplitude = 0.3;
    AttentionOptions form = plain;
    form.num_kv_heads = 2;
    for (const char* position : {"none", "rope", "flt", "damped"}) {
      form.position = position;
      forms.push_back(form);
    }
    form.position = "flt";
    form.fourier.coupling = "concatenate";
    forms.push_back(form);
    form = plain;
    form.fourier.phase = true;
    for (const char* factor : {"square", "linear"}) {
      form.fourier.factor = factor;
      forms.push_back(form);
    }
  }
  return forms;
}

std::string name(const AttentionOptions& o) {
  return o.linear.feature_map + ' ' + o.position + ' ' + o.fourier.coupling + o.fourier.factor;
}

TEST(LinearAttentionModule, StepsEqualTheCausalForward) {
  const at::Tensor x = tokens();
  for (const AttentionOptions& options : causal_forms()) {
    SCOPED_TRACE(name(options));
    const auto attention = make(options, site(true));
    LinearAttentionMemory memory;
    std::vector<at::Tensor> rows;
    for (int64_t t = 0; t < kLength; ++t) {
      rows.push_back(linear(attention).step(x.select(1, t), memory));
    }
    EXPECT_EQ(memory.length, kLength);
    EXPECT_TRUE(close(at::stack(rows, 1), attention->forward(x, {}), {1e-8, 1e-9}));
  }
}

TEST(LinearAttentionModule, SegmentsEqualOneShotInValuesAndGradients) {
  for (const AttentionOptions& options : causal_forms()) {
    SCOPED_TRACE(name(options));
    const auto attention = make(options, site(true));
    const at::Tensor x = tokens().requires_grad_(), weight = tokens(2, kLength, 9);
    const auto gradients = [&](const at::Tensor& y) {
      attention->zero_grad();
      x.mutable_grad() = at::Tensor();
      (y * weight).sum().backward();
      std::vector<at::Tensor> all = {x.grad().clone()};
      for (const at::Tensor& p : attention->parameters()) all.push_back(p.grad().clone());
      return all;
    };
    const auto whole = gradients(attention->forward(x, {}));
    LinearAttentionMemory memory;
    const at::Tensor first = linear(attention).forward_segment(x.narrow(1, 0, 4), memory);
    const at::Tensor second = linear(attention).forward_segment(x.narrow(1, 4, 5), memory);
    const auto parts = gradients(at::cat({first, second}, 1));
    ASSERT_EQ(whole.size(), parts.size());
    for (size_t i = 0; i < whole.size(); ++i) {
      EXPECT_TRUE(close(parts[i], whole[i], {1e-6, 1e-8})) << i;
    }
  }
}

TEST(LinearAttentionModule, MovingAllPositionsChangesNothing) {
  const at::Tensor x = tokens();
  at::manual_seed(2);
  const at::Tensor line = at::rand({2, kLength, 1}, at::kDouble).cumsum(1);
  const at::Tensor space = at::rand({2, kLength, 3}, at::kDouble) * 4;
  for (AttentionOptions options : causal_forms()) {
    // What a nonlinear map of random features sees is relative only in expectation.
    if (options.position == "rope" || options.fourier.coupling == "concatenate") continue;
    SCOPED_TRACE(name(options));
    const auto causal = make(options, site(true));
    EXPECT_TRUE(close(causal->forward(x, {.positions = line + 7.5}),
                      causal->forward(x, {.positions = line}), {1e-7, 1e-8}));
    if (options.position != "flt") continue;
    EXPECT_FALSE(close(causal->forward(x, {.positions = line * 1.5}),
                       causal->forward(x, {.positions = line}), {1e-4, 1e-5}));
    const auto free = make(options, site(false, 3));
    EXPECT_TRUE(close(free->forward(x, {.positions = space + 2.5}),
                      free->forward(x, {.positions = space}), {1e-7, 1e-8}));
  }
}

/// Random features phi of the heads of x, [B,H,L,M], as the definition has them.
at::Tensor dense(const LinearAttentionImpl& m, const at::Tensor& x, const at::Tensor& factor,
                 double scale) {
  const auto heads = [&](const Dense& map) {
    const at::Tensor y = map->forward(x).unflatten(-1, {-1, kWidth / kHeads}).transpose(1, 2);
    return y.repeat_interleave(kHeads / y.size(1), 1);
  };
  const ops::FeatureMapKind kind =
      scale == 1.0 ? ops::FeatureMapKind::kRelu : ops::FeatureMapKind::kFavorPlus;
  const at::Tensor q = ops::feature_map(kind, heads(m.query) * scale, m.omega);
  const at::Tensor k = ops::feature_map(kind, heads(m.key) * scale, m.omega);
  const at::Tensor y = ops::masked_linear_attention_reference(q, k, heads(m.value), factor);
  return m.output->forward(y.transpose(1, 2).flatten(2));
}

TEST(LinearAttentionModule, IsTheDefinitionWithTheMaskAsAFactor) {
  const at::Tensor x = tokens(), offsets = testing::offsets_of(testing::line(kLength));
  for (const char* map : {"relu", "favor+"}) {
    const double scale = map == std::string("relu") ? 1.0 : std::pow(kWidth / kHeads, -0.25);
    const auto damped =
        make({.position = "damped", .linear = {.feature_map = map, .num_features = 8}}, site(true));
    const LinearAttentionImpl& fading = linear(damped);
    EXPECT_TRUE(close(damped->forward(x, {}),
                      dense(fading, x, damped_of(fading).factor(offsets), scale), {1e-7, 1e-8}));
    // All waves of the grid: exp(f) itself at integer offsets.
    AttentionOptions all{.linear = {.feature_map = map, .num_features = 8}};
    all.fourier.num_frequencies = 100;
    const auto full = make(all, site(false));
    const LinearAttentionImpl& waves = linear(full);
    EXPECT_TRUE(close(full->forward(x, {}),
                      dense(waves, x, fourier_of(waves).factor(offsets), scale), {1e-4, 1e-5}));
  }
}

TEST(LinearAttentionModule, ShortInputsCanHaveTheExactMask) {
  const at::Tensor x = tokens(), space = at::rand({2, kLength, 3}, at::kDouble) * 4;
  const at::Tensor offsets = space.unsqueeze(2) - space.unsqueeze(1);  // [B,L,L,3]
  const auto outputs = [&](int64_t exact_length, const AttentionInputs& inputs, bool definition) {
    AttentionOptions options{.linear = {.num_features = 8, .exact_length = exact_length}};
    options.fourier.num_frequencies = 4;
    options.fourier.initial_amplitude = 2.0;
    const auto attention = make(options, site(false, 3));
    const LinearAttentionImpl& module = linear(attention);
    if (!definition) return attention->forward(x, inputs);
    at::Tensor factor = fourier_of(module).factor(offsets).transpose(0, 1);
    if (inputs.has_position.defined()) {
      const at::Tensor has = inputs.has_position;
      factor = at::where(has.unsqueeze(0).logical_and(has.unsqueeze(1)), factor, 1.0);
    }
    return dense(module, x, factor, 1.0);
  };
  const AttentionInputs placed{.positions = space};
  EXPECT_TRUE(close(outputs(kLength, placed, false), outputs(0, placed, true), {1e-7, 1e-8}));
  EXPECT_TRUE(close(outputs(kLength - 1, placed, false), outputs(0, placed, false), {0, 0}));
  EXPECT_FALSE(close(outputs(0, placed, false), outputs(0, placed, true), {1e-3, 1e-3}))
      << "four waves are not the mask";
  EXPECT_THROW(make({.linear = {.exact_length = 9}}, site(true)), InputError)
      << "steps would differ";
  const LinearAttentionOptions favor{.feature_map = "favor+", .exact_length = 9};
  EXPECT_THROW(make({.linear = favor}, site(false)), InputError);
  EXPECT_THROW(make({.linear = {.exact_length = -1}}, site(false)), InputError);
  const AttentionInputs partly{.positions = space,
                               .has_position = at::arange(kLength).remainder(4).ne(0)};
  EXPECT_TRUE(close(outputs(kLength, partly, false), outputs(0, partly, true), {1e-7, 1e-8}));
}

TEST(LinearAttentionModule, FftEqualsTheDenseMask) {
  // Short and long sequences are computed in different ways.
  for (const int64_t length : {9, 289}) {
    const at::Tensor x = tokens(1, length);
    for (const bool causal : {false, true}) {
      const auto attention =
          make({.position = "fft", .num_kv_heads = 2, .linear = {.num_features = 8}}, site(causal));
      const LinearAttentionImpl& m = linear(attention);
      at::Tensor factor = fourier_of(m).mask(testing::offsets_of(testing::line(length))).exp();
      if (causal) factor = factor.tril();
      EXPECT_TRUE(close(attention->forward(x, {}), dense(m, x, factor, 1.0), {1e-7, 1e-8}));
    }
    AttentionSite where = site(false, 2);
    const int64_t side = length == 9 ? 3 : 17;
    where.grid = {side, side};
    AttentionOptions options{.position = "fft", .linear = {.num_features = 8}};
    options.fourier.phase = true;
    const auto plane = make(options, where);
    const at::Tensor axis = at::arange(side, at::kDouble);
    const at::Tensor grid = at::stack(at::meshgrid({axis, axis}, "ij"), -1).view({-1, 2});
    const LinearAttentionImpl& m = linear(plane);
    const at::Tensor factor = fourier_of(m).mask(testing::offsets_of(grid)).exp();
    EXPECT_TRUE(close(plane->forward(x, {}), dense(m, x, factor, 1.0), {1e-7, 1e-8}));
  }
}

TEST(LinearAttentionModule, SharedAndJoinedFeaturesOfAConcatenationAgree) {
  const at::Tensor x = tokens();
  for (const char* map : {"favor+", "hyp+"}) {
    AttentionOptions options{.num_kv_heads = 2, .linear = {.feature_map = map, .num_features = 8}};
    options.fourier.coupling = "concatenate";
    options.fourier.num_frequencies = 8;
    const auto attention = make(options, site(false));
    const at::Tensor line = testing::line(kLength);
    // Positions with a batch go through the features side by side.
    EXPECT_TRUE(close(attention->forward(x, {.positions = line.expand({2, -1, -1})}),
                      attention->forward(x, {.positions = line}), {1e-7, 1e-8}));
  }
}

TEST(LinearAttentionModule, PaddedKeysDoNotMatterWhateverTheyHold) {
  for (AttentionOptions options : causal_forms()) {
    for (const char* kind : {"linear", "softmax"}) {
      options.kind = kind;
      SCOPED_TRACE(name(options));
      const auto attention = make(options, site(true));
      at::manual_seed(4);
      const at::Tensor x = tokens(), line = at::rand({2, kLength, 1}, at::kDouble).cumsum(1);
      const at::Tensor mask = (at::arange(kLength) < 6).unsqueeze(0).expand({2, -1});
      const at::Tensor other = x.clone();
      other.narrow(1, 6, 3).add_(3.0);
      const auto out = [&](const at::Tensor& y) {
        return attention->forward(y, {.positions = line, .key_padding_mask = mask}).narrow(1, 0, 6);
      };
      EXPECT_TRUE(close(out(other), out(x), {1e-8, 1e-9}));
      const at::Tensor cut =
          attention->forward(x.narrow(1, 0, 6), {.positions = line.narrow(1, 0, 6)});
      EXPECT_TRUE(close(out(x), cut, {1e-7, 1e-8}));
    }
  }
}

TEST(LinearAttentionModule, GroupedQueriesAreRepeatedHeads) {
  for (const char* kind : {"linear", "softmax"}) {
    AttentionOptions options{.kind = kind, .num_kv_heads = 2, .linear = {.num_features = 8}};
    const auto grouped = make(options, site(true));
    options.num_kv_heads = 0;
    const auto full = make(options, site(true));
    const at::NoGradGuard no_grad;
    const auto from = grouped->named_parameters(), to = full->named_parameters();
    for (const auto& item : to) {
      at::Tensor source = from[item.key()];
      if (source.sizes() != item.value().sizes()) {
        source = source.view({2, kWidth / kHeads, kWidth}).repeat_interleave(2, 0).flatten(0, 1);
      }
      item.value().copy_(source);
    }
    const at::Tensor x = tokens();
    EXPECT_TRUE(close(grouped->forward(x, {}), full->forward(x, {}), {1e-9, 1e-10}));
  }
}

TEST(LinearAttentionModule, ContextIsAttendedToByItsPositions) {
  const at::Tensor x = tokens(2, 3), context = tokens(2, kLength, 7);
  const at::Tensor line = testing::line(kLength);
  for (const char* kind : {"linear", "softmax"}) {
    for (const char* position : {"none", "rope", "flt"}) {
      const auto attention =
          make({.kind = kind, .position = position, .linear = {.num_features = 8}}, site(false));
      // Queries that are rows of the context see what self-attention shows those rows.
      const at::Tensor some = attention->forward(
          context.narrow(1, 2, 3),
          {.positions = line.narrow(0, 2, 3), .context = context, .context_positions = line});
      EXPECT_TRUE(close(some, attention->forward(context, {}).narrow(1, 2, 3), {1e-7, 1e-8}))
          << kind << position;
      EXPECT_EQ(attention->forward(x, {.context = context}).sizes(), x.sizes());
    }
  }
}

TEST(LinearAttentionModule, TokensThatAreNowhereIgnoreTheirPositions) {
  const at::Tensor x = tokens(), has = at::arange(kLength) != 3;
  at::Tensor line = testing::line(kLength), other = line.clone();
  other[3] = 1000.0;
  for (const char* kind : {"linear", "softmax"}) {
    for (const char* position : {"rope", "flt", "damped"}) {
      const bool causal = position == std::string("damped");
      const auto attention =
          make({.kind = kind, .position = position, .linear = {.num_features = 8}}, site(causal));
      const at::Tensor y = attention->forward(x, {.positions = line, .has_position = has});
      const at::Tensor moved = attention->forward(x, {.positions = other, .has_position = has});
      EXPECT_TRUE(close(moved, y, {1e-8, 1e-9}));
      // The same, told per example.
      EXPECT_TRUE(close(attention->forward(x, {.positions = line.expand({2, -1, -1}),
                                               .has_position = has.expand({2, -1})}),
                        y, {1e-8, 1e-9}))
          << kind << position;
    }
  }
}

TEST(LinearAttentionModule, DampedIsExactForLongSequencesInFloat) {
  const auto attention =
      make_attention({.position = "damped", .linear = {.num_features = 8}}, site(true));
  const at::NoGradGuard no_grad;
  // Rates up to e^1.5: e^(rate length) is far beyond float32.
  damped_of(linear(attention)).log_rate.add_(1.5);
  at::manual_seed(6);
  const at::Tensor x = at::randn({1, 300, kWidth});
  const at::Tensor y = attention->forward(x, {});
  attention->to(at::kDouble);
  const LinearAttentionImpl& m = linear(attention);
  const at::Tensor factor = damped_of(m).factor(testing::offsets_of(testing::line(300)));
  EXPECT_TRUE(close(y, dense(m, x.to(at::kDouble), factor, 1.0), {1e-3, 1e-4}));
  attention->to(at::kFloat);  // A gap in time lets everything fade that fades.
  const at::Tensor apart = testing::line(300) + (testing::line(300) >= 150).to(at::kDouble) * 1e6;
  EXPECT_TRUE(attention->forward(x, {.positions = apart}).isfinite().all().item<bool>());
}

TEST(LinearAttentionModule, EveryParameterGetsAGradient) {
  std::vector<AttentionOptions> forms = causal_forms();
  for (const char* position : {"none", "rope", "alibi", "t5", "flt", "damped"}) {
    forms.push_back({.kind = "softmax", .position = position});
  }
  forms.push_back({.position = "fft"});
  forms.emplace_back().fourier.kind = "neural";
  for (const AttentionOptions& options : forms) {
    SCOPED_TRACE(name(options));
    // As made: the start must not be a saddle. Two have a factor that starts at zero, and until it
    // moves what it multiplies does not matter: damped waves a modulation, a network its last
    // layer.
    const auto attention = make_attention(options, site(true));
    if (options.position == "damped" || options.fourier.kind == "neural")
      randomise(*attention, 5, 0.1);
    const at::Tensor x = tokens().to(at::kFloat);
    attention->forward(x, {}).square().sum().backward();
    for (const auto& item : attention->named_parameters()) {
      const at::Tensor& grad = item.value().grad();
      ASSERT_TRUE(grad.defined()) << item.key();
      EXPECT_TRUE(grad.isfinite().all().item<bool>()) << item.key();
      EXPECT_GT(grad.abs().max().item<double>(), 0.0) << item.key();
    }
  }
}

TEST(LinearAttentionModule, ACloneIsEqualAndIndependent) {
  std::vector<AttentionOptions> forms = causal_forms();
  forms.push_back({.kind = "softmax", .position = "t5"});
  for (const AttentionOptions& options : forms) {
    const auto attention = make(options, site(true));
    const auto copy = std::dynamic_pointer_cast<Attention>(attention->clone());
    const at::Tensor x = tokens(), y = attention->forward(x, {});
    EXPECT_TRUE(close(copy->forward(x, {}), y, {0, 0})) << name(options);
    randomise(*copy, 8, 1.0);
    EXPECT_TRUE(close(attention->forward(x, {}), y, {0, 0})) << name(options);
  }
}

TEST(LinearAttentionModule, TheSeedAndTheNamesDecideTheStart) {
  const auto one = make_attention({.position = "flt"}, site(true));
  at::manual_seed(77);
  const auto two = make_attention({.kind = "softmax", .position = "rope"}, site(true));
  for (const auto& item : two->named_parameters()) {
    EXPECT_TRUE(testing::identical(one->named_parameters()[item.key()], item.value()));
  }
  AttentionSite other = site(true);
  other.seed = 4;
  EXPECT_FALSE(at::equal(make_attention({}, other)->parameters()[0], one->parameters()[0]));
}

}  // namespace
}  // namespace mnemosyne::nn
