#include <string>

#include "mnemosyne/kernels/isa.h"
#include "tests/isa_testing.h"
#include "tests/linear_attention_cases.h"
#include "tests/testing.h"

namespace mnemosyne::ops {
namespace {

using testing::AttentionCall;
using testing::AttentionCase;
using testing::make_call;
using Kind = FeatureMapKind;

class LinearAttentionPositions : public testing::EveryIsa {};

INSTANTIATE_TEST_SUITE_P(Isas, LinearAttentionPositions,
                         ::testing::ValuesIn(kernels::available_isas()));

struct Outcome {
  LinearAttentionResult result;
  std::vector<at::Tensor> gradients;  // in the order of `differentiable`
};

Outcome run(const AttentionCall& given, const at::Tensor& weight) {
  AttentionCall call = given.leaves(at::kFloat);
  Outcome run{linear_attention(call.inputs, call.options), {}};
  std::vector<at::Tensor> leaves;
  for (at::Tensor* x : call.differentiable()) leaves.push_back(*x);
  at::Tensor loss = (run.result.output * weight).sum();
  if (call.options.with_state) loss = loss + run.result.state.sums.sin().sum();
  run.gradients = torch::autograd::grad({loss}, leaves);
  return run;
}

/// What of a call is about one example, as a batch of one.
AttentionCall example_of(const AttentionCall& call, int64_t index) {
  AttentionCall one = call;
  LinearAttentionInputs& in = one.inputs;
  for (at::Tensor* x :
       {&in.query, &in.key, &in.value, &in.query_factor, &in.key_factor, &in.log_decay,
        &in.key_padding_mask, &in.state.sums, &in.state.normalizer, &in.state.offset}) {
    if (x->defined()) *x = x->narrow(0, index, 1);
  }
  return one;
}

std::vector<AttentionCase> cases() {
  return {{.batch = 3, .rank = 3, .decay = 0.4, .own = "qkd", .mask = true, .state = true},
          {.queries = 140, .keys = 140, .rank = 40, .own = "qkd", .with_state = false},
          {.queries = 9, .keys = 70, .rank = 2, .own = "qkd", .map = Kind::kElu, .causal = false}};
}

TEST_P(LinearAttentionPositions, OfABatchAreThoseOfItsExamplesBitForBit) {
  for (const AttentionCase& c : cases()) {
    SCOPED_TRACE(testing::describe(c));
    const AttentionCall call = make_call(c);
    const at::Tensor weight =
        at::randn({c.batch, c.heads, c.queries, c.value_depth}, at::TensorOptions(at::kFloat));
    const Outcome all = run(call, weight);
    for (int64_t index = 0; index < c.batch; ++index) {
      const Outcome one = run(example_of(call, index), weight.narrow(0, index, 1));
      const auto same = [&](const at::Tensor& of_all, const at::Tensor& of_one) {
        return testing::identical(of_all.detach().narrow(0, index, 1), of_one.detach());
      };
      EXPECT_TRUE(same(all.result.output, one.result.output));
      EXPECT_TRUE(same(all.result.state.sums, one.result.state.sums));
      for (size_t i = 0; i < all.gradients.size(); ++i) {
        EXPECT_TRUE(same(all.gradients[i], one.gradients[i])) << "gradient " << i;
      }
    }
  }
}

TEST_P(LinearAttentionPositions, ThatAllExamplesShareAreTheSameOneForEach) {
  for (AttentionCase c : cases()) {
    SCOPED_TRACE(testing::describe(c));
    c.own.clear();
    const AttentionCall shared = make_call(c);
    AttentionCall each = shared;
    LinearAttentionInputs& in = each.inputs;
    for (at::Tensor* x : {&in.query_factor, &in.key_factor, &in.log_decay}) {
      if (x->defined()) *x = x->expand({c.batch, c.heads, x->size(1), c.rank});
    }
    const at::Tensor weight =
        at::randn({c.batch, c.heads, c.queries, c.value_depth}, at::TensorOptions(at::kFloat));
    const Outcome expected = run(shared, weight), actual = run(each, weight);
    EXPECT_TRUE(testing::identical(actual.result.output.detach(), expected.result.output.detach()));
    EXPECT_TRUE(
        testing::identical(actual.result.state.sums.detach(), expected.result.state.sums.detach()));
    for (size_t i = 0; i < actual.gradients.size(); ++i) {
      const at::Tensor &own = actual.gradients[i], &total = expected.gradients[i];
      if (own.dim() == total.dim()) {
        EXPECT_TRUE(testing::identical(own, total)) << "gradient " << i;
      } else {
        EXPECT_TRUE(testing::close(own.to(at::kDouble).sum(0), total,
                                   {.rtol = 1e-5, .atol = 1e-5 * total.abs().max().item<double>()}))
            << "gradient " << i;
      }
    }
  }
}

TEST(LinearAttentionPositionsOfNoExamples, HaveEmptyResultsAndGradients) {
  AttentionCall call = make_call({.batch = 0, .rank = 2, .decay = 1, .own = "qkd"});
  AttentionCall shared = make_call({.batch = 0, .rank = 2, .decay = 1});
  for (const AttentionCall& c : {call, shared}) {
    const Outcome result = run(c, at::zeros({0, 2, 65, 5}));
    EXPECT_EQ(result.result.output.sizes(), at::IntArrayRef({0, 2, 65, 5}));
    for (const at::Tensor& grad : result.gradients) {
      EXPECT_EQ(grad.numel() == 0 ? 0.0 : grad.abs().max().item<double>(), 0.0);
    }
  }
}

}  // namespace
}  // namespace mnemosyne::ops
