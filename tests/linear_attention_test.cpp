#include "mnemosyne/ops/linear_attention/linear_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "mnemosyne/kernels/isa.h"
#include "tests/isa_testing.h"
#include "tests/linear_attention_cases.h"
#include "tests/testing.h"

namespace mnemosyne::ops {
namespace {

using testing::AttentionCall;
using testing::AttentionCase;
using testing::close;
using testing::make_call;
using Kind = FeatureMapKind;

class LinearAttention : public testing::EveryIsa {};

INSTANTIATE_TEST_SUITE_P(Isas, LinearAttention, ::testing::ValuesIn(kernels::available_isas()));

/// A sum of everything that comes out, with random weights.
at::Tensor weighted_sum(const LinearAttentionResult& result, bool state) {
  at::manual_seed(9);
  const auto weigh = [](const at::Tensor& x) {
    return (x * at::randn(x.sizes(), at::kDouble).to(x.scalar_type())).sum().to(at::kDouble);
  };
  at::Tensor total = weigh(result.output);
  if (state) total = total + weigh(result.state.sums) + weigh(result.state.normalizer);
  return total;
}

std::vector<at::Tensor> gradients(const at::Tensor& loss, AttentionCall& call) {
  std::vector<at::Tensor> leaves;
  for (at::Tensor* x : call.differentiable()) leaves.push_back(*x);
  return torch::autograd::grad({loss}, leaves, {}, /*retain_graph=*/false, /*create_graph=*/false,
                               /*allow_unused=*/true);
}

/// Relative to the largest magnitude, as sums of many terms are.
::testing::AssertionResult near(const at::Tensor& actual, const at::Tensor& expected,
                                double tolerance) {
  if (expected.numel() == 0) return close(actual, expected);
  const double size = expected.detach().abs().max().to(at::kDouble).item<double>();
  return close(actual, expected, {.rtol = tolerance, .atol = tolerance * size + 1e-30});
}

/// Relative to the largest of all gradients: some are zero in exact arithmetic, because a common
/// factor cancels in the quotient, and are only as small as what cancels.
void expect_gradients(const std::vector<at::Tensor>& actual,
                      const std::vector<at::Tensor>& expected, double tolerance) {
  double size = 0;
  for (const at::Tensor& x : expected) {
    if (x.defined()) size = std::max(size, x.abs().max().to(at::kDouble).item<double>());
  }
  for (size_t i = 0; i < expected.size(); ++i) {
    if (expected[i].defined()) {
      EXPECT_TRUE(close(actual[i], expected[i], {.rtol = tolerance, .atol = tolerance * size}))
          << "gradient " << i;
    } else if (actual[i].defined()) {
      EXPECT_EQ(actual[i].abs().max().item<double>(), 0) << "gradient " << i;
    }
  }
}

TEST_P(LinearAttention, KernelIsTheReferenceInValuesStateAndAllGradients) {
  for (const AttentionCase& c : testing::attention_cases()) {
    SCOPED_TRACE(testing::describe(c));
    const AttentionCall given = make_call(c);
    AttentionCall fused = given.leaves(at::kFloat), exact = given.leaves(at::kDouble);
    const LinearAttentionResult actual = linear_attention(fused.inputs, fused.options);
    const LinearAttentionResult expected = linear_attention_reference(exact.inputs, exact.options);
    EXPECT_TRUE(near(actual.output, expected.output, 2e-5));
    EXPECT_TRUE(near(actual.state.offset, expected.state.offset, 2e-5));
    if (c.with_state) {
      EXPECT_TRUE(near(actual.state.sums, expected.state.sums, 2e-5));
      EXPECT_TRUE(near(actual.state.normalizer, expected.state.normalizer, 2e-5));
    }
    expect_gradients(gradients(weighted_sum(actual, c.with_state), fused),
                     gradients(weighted_sum(expected, c.with_state), exact), 2e-5);
  }
}

TEST(LinearAttentionReference, IsTheMatrixOfWeightsInValuesAndAllGradients) {
  for (AttentionCase c : testing::attention_cases()) {
    SCOPED_TRACE(testing::describe(c));
    c.state = false;
    const AttentionCall given = make_call(c);
    AttentionCall chunked = given.leaves(at::kDouble), dense = given.leaves(at::kDouble);
    const LinearAttentionResult actual =
        linear_attention_reference(chunked.inputs, chunked.options, 16);
    const at::Tensor expected = linear_attention_dense(dense.inputs, dense.options);
    EXPECT_TRUE(near(actual.output, expected, 1e-10));
    expect_gradients(gradients(weighted_sum(actual, false), chunked),
                     gradients(weighted_sum({expected, {}}, false), dense), 1e-10);
  }
}

TEST(LinearAttentionReference, CountsEarlierKeysOfItsState) {
  // Cross-attention to keys in two portions equals attention to all of them.
  for (const auto map : {Kind::kFavorPlus, Kind::kTrig, Kind::kElu}) {
    AttentionCall call =
        make_call({.queries = 6, .keys = 40, .map = map, .causal = false, .spread = 0.4});
    const at::Tensor expected = linear_attention_dense(call.inputs, call.options);
    LinearAttentionInputs first = call.inputs, second = call.inputs;
    first.key = call.inputs.key.narrow(2, 0, 25);
    first.value = call.inputs.value.narrow(2, 0, 25);
    second.key = call.inputs.key.narrow(2, 25, 15);
    second.value = call.inputs.value.narrow(2, 25, 15);
    second.state = linear_attention_reference(first, call.options).state;
    EXPECT_TRUE(near(linear_attention_reference(second, call.options).output, expected, 1e-10));
  }
}

/// Tokens first to first + count of a causal call.
LinearAttentionInputs tokens_of(const LinearAttentionInputs& in, int64_t first, int64_t count) {
  LinearAttentionInputs part = in;
  for (at::Tensor* x : {&part.query, &part.key, &part.value}) *x = x->narrow(2, first, count);
  for (at::Tensor* x :
       {&part.query_factor, &part.key_factor, &part.log_decay, &part.query_log, &part.key_log}) {
    if (x->defined()) *x = x->narrow(-2, first, count);
  }
  at::Tensor& mask = part.key_padding_mask;
  if (mask.defined()) mask = mask.narrow(1, first, count);
  return part;
}

TEST_P(LinearAttention, SegmentsAndSingleTokensAreOneShotInValuesAndGradients) {
  const AttentionCase cases[] = {
      {.logs = true, .mask = true},
      {.queries = 40, .keys = 40, .map = Kind::kHypPlus},
      {.queries = 40, .keys = 40, .rank = 3, .map = Kind::kTrig, .spread = 0.3},
      {.queries = 70, .keys = 70, .rank = 1, .map = Kind::kRelu},
      {.queries = 150, .keys = 150, .rank = 4, .decay = 0.3},
      {.queries = 70, .keys = 70, .rank = 3, .decay = 0.3, .own = "qkd", .mask = true},
      {.queries = 33, .keys = 33, .map = std::nullopt}};
  for (const AttentionCase& c : cases) {
    for (const int64_t segment : {1, 29}) {
      SCOPED_TRACE(testing::describe(c) + " segment " + std::to_string(segment));
      const AttentionCall given = make_call(c);
      AttentionCall whole = given.leaves(at::kFloat), parts = given.leaves(at::kFloat);
      const LinearAttentionResult expected = linear_attention(whole.inputs, whole.options);
      std::vector<at::Tensor> outputs;
      LinearAttentionState state;
      for (int64_t first = 0; first < c.queries; first += segment) {
        LinearAttentionInputs part =
            tokens_of(parts.inputs, first, std::min(segment, c.queries - first));
        part.state = state;
        LinearAttentionResult result = linear_attention(part, parts.options);
        outputs.push_back(result.output);
        state = result.state;
      }
      const LinearAttentionResult actual{at::cat(outputs, 2), state};
      EXPECT_TRUE(near(actual.output, expected.output, 2e-5));
      EXPECT_TRUE(near(actual.state.sums, expected.state.sums, 2e-5));
      EXPECT_TRUE(near(actual.state.offset, expected.state.offset, 2e-5));
      expect_gradients(gradients(weighted_sum(actual, true), parts),
                       gradients(weighted_sum(expected, true), whole), 2e-5);
    }
  }
}

TEST_P(LinearAttention, WithoutItsStateTheRestIsTheSame) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    AttentionCase c{.queries = 150, .keys = 150, .rank = 3, .decay = 0.3, .state = true};
    AttentionCall full = make_call(c).leaves(type);
    c.with_state = false;
    AttentionCall bare = make_call(c).leaves(type);
    const LinearAttentionResult expected = linear_attention(full.inputs, full.options);
    const LinearAttentionResult actual = linear_attention(bare.inputs, bare.options);
    EXPECT_EQ(actual.state.sums.sizes(), at::IntArrayRef({2, 2, 0, 5}));
    EXPECT_EQ(actual.state.normalizer.sizes(), at::IntArrayRef({2, 2, 0}));
    EXPECT_TRUE(at::equal(actual.output, expected.output));
    const auto actual_gradients = gradients(weighted_sum(actual, true), bare);
    const auto expected_gradients = gradients(weighted_sum(expected, false), full);
    for (size_t i = 0; i < actual_gradients.size(); ++i) {
      EXPECT_TRUE(at::equal(actual_gradients[i], expected_gradients[i])) << "gradient " << i;
    }
  }
}

TEST_P(LinearAttention, FutureTokensDoNotChangeOneBit) {
  for (const auto map : {Kind::kFavorPlus, Kind::kHypPlus, Kind::kTrig, Kind::kRelu, Kind::kElu}) {
    for (const int64_t rank : {0, 3, 40}) {
      const AttentionCall call = make_call({.queries = 150,
                                            .keys = 150,
                                            .rank = rank,
                                            .map = map,
                                            .with_state = rank < 40,
                                            .spread = 0.5});
      const AttentionCall single = call.leaves(at::kFloat);
      const at::Tensor before = linear_attention(single.inputs, single.options).output;
      for (const int64_t changed : {1, 10, 63, 64, 100, 149}) {
        AttentionCall other = single.leaves(at::kFloat);
        // A key so large that relative to it all earlier ones would vanish.
        for (at::Tensor* x : {&other.inputs.key, &other.inputs.value, &other.inputs.query}) {
          *x = x->detach().clone();
          x->select(2, changed).mul_(40).add_(3);
        }
        const at::Tensor after = linear_attention(other.inputs, other.options).output;
        EXPECT_TRUE(testing::identical(after.narrow(2, 0, changed), before.narrow(2, 0, changed)))
            << static_cast<int>(map) << " " << changed;
        EXPECT_FALSE(at::equal(after.select(2, changed), before.select(2, changed)));
      }
    }
  }
}

TEST_P(LinearAttention, StaysAccurateForExponentsThatOverflow) {
  // exp(-|k|^2/2) alone underflows here, and the products overflow.
  for (const bool causal : {true, false}) {
    AttentionCall call =
        make_call({.queries = 100, .keys = 100, .omegas = 32, .causal = causal, .spread = 1.0});
    call.inputs.key = call.inputs.key + 12;
    const AttentionCall single = call.leaves(at::kFloat);
    const at::Tensor output = linear_attention(single.inputs, single.options).output;
    EXPECT_TRUE(output.isfinite().all().item<bool>());
    // What all exponents have in common cancels; the definition needs it to stay in range.
    call.inputs.key_log = at::full({2, 100, 32}, 150, at::kDouble);
    EXPECT_TRUE(near(output, linear_attention_dense(call.inputs, call.options), 1e-3));
  }
}

TEST_P(LinearAttention, MaskedKeysDoNotExist) {
  for (const auto& [causal, rank] : std::initializer_list<std::pair<bool, int64_t>>{
           {true, 0}, {false, 0}, {true, 64}, {false, 64}}) {
    AttentionCall call = make_call({.queries = 150,
                                    .keys = 150,
                                    .rank = rank,
                                    .causal = causal,
                                    .mask = true,
                                    .with_state = rank == 0});
    AttentionCall poisoned = call.leaves(at::kFloat);
    const LinearAttentionResult clean = linear_attention(poisoned.inputs, poisoned.options);
    const at::Tensor masked = call.inputs.key_padding_mask.logical_not().view({2, 1, 150, 1});
    for (at::Tensor* x : {&poisoned.inputs.key, &poisoned.inputs.value}) {
      *x = x->detach().masked_fill(masked, std::numeric_limits<float>::quiet_NaN());
      x->requires_grad_(true);
    }
    const LinearAttentionResult result = linear_attention(poisoned.inputs, poisoned.options);
    EXPECT_TRUE(testing::identical(result.output, clean.output));
    const auto grads = gradients(weighted_sum(result, true), poisoned);
    EXPECT_EQ(grads[1].masked_select(masked).abs().max().item<float>(), 0);
    EXPECT_EQ(grads[2].masked_select(masked).abs().max().item<float>(), 0);
    EXPECT_TRUE(grads[0].isfinite().all().item<bool>());
  }
}

TEST_P(LinearAttention, WhatFadesCompletelyIsForgotten) {
  // A decay that leaves nothing: every token sees itself, and those before it through the one part
  // that does not fade. By a state and by blocks.
  for (const int64_t rank : {2, 40}) {
    AttentionCall call = make_call(
        {.queries = 200, .keys = 200, .rank = rank, .map = Kind::kRelu, .with_state = rank == 2});
    at::Tensor& fade = call.inputs.log_decay;
    fade = at::full({2, 200, rank}, -1e4, at::kDouble);
    fade.select(2, 0).zero_();
    AttentionCall leaves = call.leaves(at::kFloat);
    const LinearAttentionResult actual = linear_attention(leaves.inputs, leaves.options);
    const at::Tensor p = call.inputs.query_factor, s = call.inputs.key_factor;
    const at::Tensor factor = at::matmul(p.narrow(2, 0, 1), s.narrow(2, 0, 1).mT()) +
                              at::diag_embed((p * s).narrow(2, 1, rank - 1).sum(2));
    LinearAttentionInputs plain = call.inputs;
    plain.query_factor = plain.key_factor = plain.log_decay = at::Tensor();
    EXPECT_TRUE(near(actual.output, linear_attention_dense(plain, call.options, factor), 2e-5));
    for (const at::Tensor& grad : gradients(weighted_sum(actual, true), leaves)) {
      EXPECT_TRUE(grad.isfinite().all().item<bool>());
    }
  }
}

TEST_P(LinearAttention, WithoutAnyKeyIsZero) {
  AttentionCall call = make_call({.queries = 4, .keys = 9, .causal = false, .mask = true});
  call.inputs.key_padding_mask.fill_(false);
  AttentionCall single = call.leaves(at::kFloat);
  const LinearAttentionResult result = linear_attention(single.inputs, single.options);
  EXPECT_EQ(result.output.abs().max().item<float>(), 0);
  for (const at::Tensor& grad : gradients(weighted_sum(result, false), single)) {
    EXPECT_EQ(grad.abs().max().item<float>(), 0);
  }
  call = make_call({.queries = 0, .keys = 0, .state = true}).leaves(at::kFloat);
  const LinearAttentionResult empty = linear_attention(call.inputs, call.options);
  EXPECT_EQ(empty.output.sizes(), at::IntArrayRef({2, 2, 0, 5}));
  EXPECT_TRUE(testing::identical(empty.state.sums, call.inputs.state.sums.detach()));
}

TEST_P(LinearAttention, KeepsTheSignOfASmallDenominator) {
  // One signed feature: the weights are +-1e-4, below the floor, and do not cancel.
  const at::Tensor query = at::full({1, 1, 2, 1}, 1e-2), value = at::ones({1, 1, 1, 1});
  for (const float sign : {1.0f, -1.0f}) {
    const LinearAttentionInputs inputs{
        .query = query, .key = at::full({1, 1, 1, 1}, sign * 1e-2f), .value = value};
    const at::Tensor output = linear_attention(inputs, {.denominator_floor = 1e-3}).output;
    EXPECT_TRUE(close(output, at::full({1, 1, 2, 1}, 0.1), {.rtol = 1e-5}));
    const at::Tensor reference =
        linear_attention_reference(inputs, {.denominator_floor = 1e-3}).output;
    EXPECT_TRUE(close(output, reference, {.rtol = 1e-5}));
  }
}

TEST_P(LinearAttention, TakesBfloat16WithSumsInFloat32) {
  const AttentionCall given = make_call({.queries = 300, .keys = 300, .rank = 1});
  AttentionCall half = given.leaves(at::kBFloat16), rounded = half.leaves(at::kDouble);
  const LinearAttentionResult result = linear_attention(half.inputs, half.options);
  EXPECT_EQ(result.output.scalar_type(), at::kBFloat16);
  EXPECT_EQ(result.state.sums.scalar_type(), at::kFloat);
  const LinearAttentionResult expected =
      linear_attention_reference(rounded.inputs, rounded.options);
  EXPECT_TRUE(near(result.state.sums, expected.state.sums, 1e-5));
  EXPECT_TRUE(near(result.output, expected.output, 4e-3));  // one rounding to 8 bits
  const auto grads = gradients(weighted_sum(result, false), half);
  for (const at::Tensor& grad : grads) EXPECT_EQ(grad.scalar_type(), at::kBFloat16);
  expect_gradients(grads, gradients(weighted_sum(expected, false), rounded), 2e-2);
}

TEST_P(LinearAttention, ReadsTransposedTensorsInPlace) {
  const AttentionCall call = make_call({.queries = 70, .keys = 70}).leaves(at::kFloat);
  AttentionCall strided = call;
  for (at::Tensor* x : {&strided.inputs.query, &strided.inputs.key, &strided.inputs.value}) {
    *x = x->detach().transpose(1, 2).contiguous().transpose(1, 2);
  }
  EXPECT_FALSE(strided.inputs.query.is_contiguous());
  EXPECT_TRUE(testing::identical(linear_attention(strided.inputs, strided.options).output,
                                 linear_attention(call.inputs, call.options).output.detach()));
}

TEST(LinearAttentionFeatures, EstimateSoftmaxAttentionWithoutBias) {
  // The estimate of the numerator is unbiased: the mean over draws has the error of its deviation.
  constexpr int64_t kDraws = 600;
  const at::Tensor q = make_call({.batch = 1, .heads = 1, .depth = 4}).inputs.query.select(2, 0);
  const at::Tensor k = make_call({.batch = 1, .heads = 1, .depth = 4}, 2).inputs.key.select(2, 0);
  const double exact = std::exp((q * k).sum().item<double>() / 2);  // D^(1/2) = 2
  const double root = std::pow(4.0, -0.25);
  std::vector<at::Tensor> omegas;
  for (uint64_t seed = 0; seed < kDraws; ++seed) omegas.push_back(nn::draw_omega(4, 4, seed));
  for (const auto kind : {Kind::kFavorPlus, Kind::kHypPlus, Kind::kTrig}) {
    std::vector<double> estimates;
    for (const at::Tensor& omega : omegas) {
      estimates.push_back((feature_map(kind, q * root, omega) * feature_map(kind, k * root, omega))
                              .sum()
                              .item<double>());
    }
    const at::Tensor all = at::tensor(estimates, at::kDouble);
    const double error = all.std().item<double>() / std::sqrt(static_cast<double>(kDraws));
    EXPECT_LT(std::abs(all.mean().item<double>() - exact), 4 * error) << static_cast<int>(kind);
  }
}

TEST(LinearAttentionFeatures, ConvergeToSoftmaxAttentionAsTheirNumberGrows) {
  const AttentionCase c{.batch = 1, .heads = 1, .queries = 40, .keys = 40, .depth = 8};
  AttentionCall call = make_call(c).leaves(at::kFloat);
  const at::Tensor exact = at::scaled_dot_product_attention(
      call.inputs.query, call.inputs.key, call.inputs.value, {}, 0.0, /*is_causal=*/true);
  const at::Tensor few = nn::draw_omega(64, 8, 1), many = nn::draw_omega(16384, 8, 1);
  for (const auto kind : {Kind::kFavorPlus, Kind::kHypPlus, Kind::kTrig}) {
    const auto error = [&](const at::Tensor& omega) {
      call.options.feature_map = kind;
      call.options.omega = omega;
      const at::Tensor output = linear_attention(call.inputs, call.options).output;
      return (output - exact).square().mean().sqrt().item<double>();
    };
    EXPECT_LT(error(many), 0.03) << static_cast<int>(kind);
    EXPECT_LT(error(many), error(few) / 4) << static_cast<int>(kind);
  }
}

}  // namespace
}  // namespace mnemosyne::ops
