#include <gtest/gtest.h>

#include "mnemosyne/ops/linear_attention/benchmark.h"

namespace mnemosyne::ops {
namespace {

TEST(BenchmarkAttention, FindsMemoryFarBelowFeaturesAndWeightsForEveryToken) {
  for (const bool causal : {true, false}) {
    const AttentionBenchmarkOptions options{.lengths = {256, 2048},
                                            .features = {64},
                                            .heads = 2,
                                            .depth = 16,
                                            .causal = causal,
                                            .longest_softmax = 256,
                                            .longest_with_bias = 256,
                                            .repetitions = 1};
    const AttentionBenchmark result = benchmark_attention(options);
    EXPECT_GT(result.multiply_rate, 0);
    ASSERT_EQ(result.rows.size(), 2U);
    const AttentionCost &brief = result.rows[0].linear[0], &longer = result.rows[1].linear[0];
    EXPECT_GT(longer.forward_seconds, 0);
    EXPECT_GT(longer.training_seconds, 0);
    EXPECT_GT(result.rows[0].softmax.training_seconds, 0);
    EXPECT_GT(result.rows[0].softmax_with_bias.forward_seconds, 0);
    EXPECT_EQ(result.rows[1].softmax.forward_seconds, 0);  // beyond the limit
    const int64_t more_tokens = (2048 - 256) * options.heads;
    // Forward: one denominator for each token. Backward: also a few numbers.
    EXPECT_LE(longer.forward_bytes - brief.forward_bytes, 8 * more_tokens);
    EXPECT_LE(longer.training_bytes - brief.training_bytes, 24 * more_tokens);
  }
}

TEST(BenchmarkAttention, CountsTheOperationsOfTheKernel) {
  // Both directions: for each token of a head two projections and two products with a state.
  const AttentionBenchmarkOptions options{.heads = 1, .depth = 16, .causal = false};
  EXPECT_EQ(linear_attention_operations(options, 64, 32, 0, false), 64 * 4 * 2 * 16 * 32);
  const double one = linear_attention_operations({.heads = 1, .depth = 16}, 1024, 32, 0, true);
  EXPECT_EQ(linear_attention_operations({.heads = 1, .depth = 16}, 4096, 32, 0, true), 4 * one);
  // A high rank: scores, factors and values of all pairs, or of half of them and the diagonal.
  EXPECT_EQ(linear_attention_operations(options, 64, 32, 50, false),
            64 * (2 * 2 * 16 * 32 + 64 * 2 * (32 + 50 + 16)));
  EXPECT_EQ(linear_attention_operations({.heads = 1, .depth = 16}, 64, 32, 50, false),
            64 * (2 * 2 * 16 * 32 + 65 * (32 + 50 + 16)));
}

}  // namespace
}  // namespace mnemosyne::ops
