#include "mnemosyne/ops/large_tensor.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "mnemosyne/ops/linear_attention/linear_attention.h"

namespace mnemosyne::ops {
namespace {

TEST(LargeTensor, IsAnOrdinaryTensorOfAnySize) {
  for (const int64_t size : {int64_t{0}, int64_t{3}, int64_t{3} << 20}) {  // none, small, 12 MiB
    const at::Tensor x = empty_large({size, 1});
    EXPECT_TRUE(x.is_contiguous() && x.scalar_type() == at::kFloat);
    EXPECT_EQ(x.fill_(2.0).sum().item<double>(), 2.0 * static_cast<double>(size));
  }
}

TEST(LargeTensor, ResultsOfLinearAttentionAreSuch) {
  // 16 MiB of queries in one call, and in segments of 1 MiB.
  at::manual_seed(0);
  const at::Tensor x = at::rand({1, 1, 65536, 64});
  const LinearAttentionInputs inputs{.query = x, .key = x, .value = x};
  const at::Tensor whole = linear_attention(inputs, {.causal = true}).output;
  LinearAttentionState state;
  for (int64_t first = 0; first < x.size(2); first += 4096) {
    const at::Tensor part = x.narrow(2, first, 4096);
    const LinearAttentionResult result = linear_attention(
        {.query = part, .key = part, .value = part, .state = state}, {.causal = true});
    EXPECT_TRUE(at::equal(result.output, whole.narrow(2, first, 4096))) << first;
    state = result.state;
  }
}

}  // namespace
}  // namespace mnemosyne::ops
