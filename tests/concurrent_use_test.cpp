// Threads of the program that use the library at the same time, each on data of its own: they get
// what one alone gets. Most of all for the thread sanitizer (CONTRIBUTING.md).
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <exception>
#include <functional>
#include <latch>
#include <thread>

#include "linear_attention_cases.h"
#include "mnemosyne/nn/linear_attention.h"
#include "mnemosyne/nn/position/fourier_position.h"
#include "mnemosyne/ops/short_attention/short_attention.h"
#include "mnemosyne/optim/rules.h"
#include "rule_testing.h"
#include "testing.h"

namespace mnemosyne {
namespace {

using Results = std::vector<at::Tensor>;

constexpr int kCallers = 3;

/// `work(caller)` of every caller, on a thread each, which start together.
std::vector<Results> at_once(const std::function<Results(int)>& work) {
  std::vector<Results> results(kCallers);
  std::vector<std::exception_ptr> errors(kCallers);
  std::latch start(kCallers);
  std::vector<std::thread> threads;
  for (int caller = 0; caller < kCallers; ++caller) {
    threads.emplace_back([&, caller] {
      start.arrive_and_wait();
      try {
        results[caller] = work(caller);
      } catch (...) {
        errors[caller] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
  return results;
}

/// Each caller's loops have two threads.
class ConcurrentUse : public ::testing::Test {
 protected:
  void SetUp() override { at::set_num_threads(2); }
  void TearDown() override { at::set_num_threads(threads_); }

  /// At once first: what is made at the first use is then made by several.
  static void expect_same_alone(const std::function<Results(int)>& work) {
    const std::vector<Results> results = at_once(work);
    for (int caller = 0; caller < kCallers; ++caller) {
      const Results alone = work(caller);
      ASSERT_EQ(results[caller].size(), alone.size());
      for (size_t i = 0; i < alone.size(); ++i) {
        EXPECT_TRUE(testing::identical(results[caller][i], alone[i]))
            << "caller " << caller << ", result " << i;
      }
    }
  }

 private:
  int threads_ = at::get_num_threads();
};

class ConcurrentRules : public ConcurrentUse, public ::testing::WithParamInterface<std::string> {};

TEST_P(ConcurrentRules, MayBeShared) {
  const std::vector<std::vector<int64_t>> shapes{{120, 90}, {90, 120}, {5000}, {}};
  const std::shared_ptr<const optim::UpdateRule> rule = optim::make_rule(GetParam());
  expect_same_alone([&](int caller) {
    Results params = testing::waves(shapes, caller);
    optim::State state = optim::init_state(*rule, params);
    for (int step = 0; step < 3; ++step) {
      rule->step_(testing::waves(shapes, 10 * caller + step), state, params,
                  {.lr = rule->default_lr()});
    }
    const optim::UpdateResult next =
        rule->update(testing::waves(shapes, 7), state, params, {.lr = rule->default_lr()});
    params.insert(params.end(), next.updates.begin(), next.updates.end());
    return params;
  });
}

INSTANTIATE_TEST_SUITE_P(All, ConcurrentRules, ::testing::ValuesIn(optim::rule_names()),
                         testing::name_of_test);

TEST_F(ConcurrentUse, OfLinearAttention) {
  const testing::AttentionCase plain{
      .heads = 4, .key_heads = 2, .queries = 140, .keys = 140, .depth = 16, .omegas = 16};
  for (const int64_t rank : {0, 3, 40}) {
    testing::AttentionCase c = plain;
    c.rank = rank;
    c.with_state = rank < 40;
    std::vector<testing::AttentionCall> calls;
    for (int caller = 0; caller < kCallers; ++caller) {
      calls.push_back(testing::make_call(c, caller).leaves(at::kFloat));
    }
    expect_same_alone([&](int caller) {
      testing::AttentionCall call = calls[caller];
      const at::Tensor output = ops::linear_attention(call.inputs, call.options).output;
      Results leaves;
      for (const at::Tensor* x : call.differentiable()) leaves.push_back(*x);
      Results results = torch::autograd::grad({output.sum()}, leaves, {}, {}, false, true);
      results.push_back(output);
      return results;
    });
  }
}

TEST_F(ConcurrentUse, OfShortAttention) {
  constexpr int64_t kTokens = 33, kHeads = 3, kDepth = 21;
  const Results inputs = testing::waves(
      std::vector<std::vector<int64_t>>(kCallers, {40 * kTokens, 3 * kHeads * kDepth}), 1);
  expect_same_alone([&](int caller) {
    const at::Tensor qkv = inputs[caller].clone().requires_grad_(true);
    const at::Tensor output = ops::short_attention(qkv, kTokens, kHeads, /*causal=*/true);
    return Results{output, torch::autograd::grad({output.square().sum()}, {qkv})[0]};
  });
}

// Its grid of waves grows with what each caller asks for.
TEST_F(ConcurrentUse, OfOneModuleWhosePositionsGrow) {
  const nn::LinearAttention attention(nn::LinearAttentionOptions{
      .embed_dim = 16,
      .num_heads = 2,
      .num_features = 8,
      .position = nn::FourierPositionOptions{
          .coupling = "multiplicative", .num_frequencies = 16, .extent = std::nullopt}});
  expect_same_alone([&](int caller) {
    const at::NoGradGuard no_grad;
    Results outputs;
    for (const int64_t length : {20 + 10 * caller, 9, 70}) {
      outputs.push_back(attention->forward(testing::wave({1, length, 16}, caller)));
    }
    return outputs;
  });
}

}  // namespace
}  // namespace mnemosyne
