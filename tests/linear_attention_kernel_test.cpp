#include <gtest/gtest.h>

#include "mnemosyne/kernels/linear_attention.h"

namespace mnemosyne::kernels {
namespace {

TEST(LinearAttentionKernel, TakesBlocksOnlyWhereAStateCostsMore) {
  const auto prefers = [](int64_t tokens, int64_t rank, bool causal, bool backward = false) {
    return attention_prefers_blocks({.batch = 1,
                                     .heads = 1,
                                     .key_heads = 1,
                                     .queries = tokens,
                                     .keys = 1,
                                     .depth = 64,
                                     .value_depth = 64,
                                     .omegas = 64,
                                     .rank = rank},
                                    AttentionFeatures::kExp, causal, backward);
  };
  // 4 R M Dv operations against L (M + Dv + R), half of them when causal.
  EXPECT_TRUE(prefers(2676, 25, true));
  EXPECT_FALSE(prefers(2678, 25, true));
  EXPECT_TRUE(prefers(1338, 25, false));
  EXPECT_FALSE(prefers(1339, 25, false));
  EXPECT_TRUE(prefers(2115, 25, true, true));
  EXPECT_FALSE(prefers(2116, 25, true, true));
  // Whatever the rank, beyond 4 M Dv tokens never.
  EXPECT_FALSE(prefers(16384, 1'000'000, true));
}

}  // namespace
}  // namespace mnemosyne::kernels
