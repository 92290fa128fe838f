#include "mnemosyne/nn/vmap.h"

#include <ATen/ATen.h>

#include "mnemosyne/nn/functional_call.h"
#include "mnemosyne/nn/performer_block.h"
#include "testing.h"

namespace mnemosyne::nn {
namespace {

using testing::close;

TEST(Vmap, IsOneCallAfterTheOther) {
  // Through the library's own operators, too: a block with positions, whose weights differ.
  const at::NoGradGuard no_grad;
  at::manual_seed(5);
  const PerformerBlock block(
      {.site = {.embed_dim = 8, .num_heads = 2, .extent = 8.0, .seed = 1}, .hidden = 8});
  const FunctionalModule functional(block.ptr());
  std::vector<std::string> names;
  for (const auto& parameter : block->named_parameters()) names.push_back(parameter.key());
  const std::vector<size_t> places = functional.places(names);
  constexpr int64_t kExamples = 3;
  std::vector<at::Tensor> stacked;
  for (const at::Tensor& p : block->parameters()) {
    std::vector<at::Tensor> own;
    for (int64_t i = 0; i < kExamples; ++i) own.push_back(p + 0.3 * at::randn(p.sizes()));
    stacked.push_back(at::stack(own));
  }
  const at::Tensor x = at::randn({kExamples, 2, 5, 8}), shared = at::randn({2, 5, 8});
  const auto run = [&](const std::vector<at::Tensor>& weights, const at::Tensor& tokens) {
    return functional.call(places, weights, [&](torch::nn::Module& module) {
      return module.as<PerformerBlockImpl>()->forward(tokens + shared);
    });
  };
  at::Tensor together;
  {
    const Vmap each(kExamples);
    std::vector<at::Tensor> weights;
    for (const at::Tensor& w : stacked) weights.push_back(each.one_of(w));
    EXPECT_EQ(each.one_of(x).sizes(), at::IntArrayRef({2, 5, 8}));
    together = each.all_of(run(weights, each.one_of(x)));
  }
  ASSERT_EQ(together.sizes(), x.sizes());
  for (int64_t i = 0; i < kExamples; ++i) {
    std::vector<at::Tensor> weights;
    for (const at::Tensor& w : stacked) weights.push_back(w[i]);
    EXPECT_TRUE(close(together[i], run(weights, x[i]), {.rtol = 1e-4, .atol = 1e-5})) << i;
  }
}

TEST(Vmap, WhatNoExampleHasAPartInIsTheSameForAll) {
  const at::Tensor x = at::arange(3, at::kDouble);
  at::Tensor all;
  {
    const Vmap each(4);
    EXPECT_FALSE(each.one_of(at::Tensor()).defined());
    all = each.all_of(x + 1);
  }
  EXPECT_TRUE(at::equal(all, (x + 1).expand({4, 3})));
}

TEST(Vmap, EndsWithAnError) {
  const auto fails = [] {
    const Vmap each(2);
    return each.one_of(at::zeros({3, 1}));
  };
  EXPECT_THROW(fails(), c10::Error);
  // Nothing is batched afterwards.
  EXPECT_EQ((at::zeros({2, 3}) + 1).sizes(), at::IntArrayRef({2, 3}));
}

}  // namespace
}  // namespace mnemosyne::nn
