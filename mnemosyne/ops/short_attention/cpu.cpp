#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <vector>

#include "mnemosyne/kernels/short_attention.h"
#include "mnemosyne/ops/parallel.h"
#include "mnemosyne/ops/short_attention/fused.h"

namespace mnemosyne::ops {
namespace {

/// Calls `body(begin, end, scratch)` for runs of examples that make up all of them, on the threads
/// that are worth it.
template <typename Params, typename Body>
void for_each_part(const Params& p, int64_t scratch_floats, const Body& body) {
  constexpr int64_t kOperations = 200'000;  // worth waking up a thread
  const int64_t grain = parallel_grain(1, 2 * p.heads * p.tokens * p.tokens * p.depth, kOperations);
  parallel_for(0, p.examples, grain, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(scratch_floats);
    body(begin, end, scratch.data());
  });
}

}  // namespace

ShortAttentionSaved short_attention_fused(const at::Tensor& qkv, int64_t tokens, int64_t heads,
                                          bool causal) {
  const int64_t examples = qkv.size(0) / tokens, depth = qkv.size(1) / (3 * heads);
  const ShortAttentionSaved saved{
      .output = at::empty({qkv.size(0), heads * depth}, qkv.options()),
      .weights = at::empty({examples, heads, tokens, kernels::padded_row(tokens)}, qkv.options())};
  const kernels::ShortAttentionParams problem{
      .qkv = qkv.const_data_ptr<float>(),
      .weights = saved.weights.mutable_data_ptr<float>(),
      .output = saved.output.mutable_data_ptr<float>(),
      .examples = examples,
      .tokens = tokens,
      .heads = heads,
      .depth = depth,
      .scale = static_cast<float>(short_attention_scale(depth)),
      .causal = causal};
  for_each_part(problem, kernels::short_attention_scratch(problem),
                [&](int64_t begin, int64_t end, float* scratch) {
                  kernels::short_attention({problem, begin, end, scratch});
                });
  return saved;
}

at::Tensor short_attention_fused_backward(const at::Tensor& qkv, const at::Tensor& weights,
                                          const at::Tensor& grad_output) {
  const int64_t heads = weights.size(1), depth = qkv.size(1) / (3 * heads);
  const at::Tensor grad_qkv = at::empty_like(qkv);
  const kernels::ShortAttentionBackwardParams problem{
      .qkv = qkv.const_data_ptr<float>(),
      .weights = weights.const_data_ptr<float>(),
      .grad_output = grad_output.const_data_ptr<float>(),
      .grad_qkv = grad_qkv.mutable_data_ptr<float>(),
      .examples = weights.size(0),
      .tokens = weights.size(2),
      .heads = heads,
      .depth = depth,
      .scale = static_cast<float>(short_attention_scale(depth))};
  for_each_part(problem, kernels::short_attention_backward_scratch(problem),
                [&](int64_t begin, int64_t end, float* scratch) {
                  kernels::short_attention_backward({problem, begin, end, scratch});
                });
  return grad_qkv;
}

}  // namespace mnemosyne::ops
