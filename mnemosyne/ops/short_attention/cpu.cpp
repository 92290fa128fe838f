#include <ATen/core/grad_mode.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/softmax.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <limits>
#include <vector>

#include "mnemosyne/kernels/short_attention.h"
#include "mnemosyne/ops/parallel.h"
#include "mnemosyne/ops/reference_gradient.h"
#include "mnemosyne/ops/short_attention/short_attention.h"

namespace mnemosyne::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

double score_scale(int64_t depth) { return 1.0 / std::sqrt(static_cast<double>(depth)); }

/// Calls `body(first, count, scratch)` for runs of examples that make up all of them, on the
/// threads that are worth it.
template <typename Body>
void for_each_part(int64_t examples, int64_t tokens, int64_t heads, int64_t depth,
                   const Body& body) {
  constexpr int64_t kOperations = 200'000;  // worth waking up a thread
  const int64_t grain = parallel_grain(1, 2 * heads * tokens * tokens * depth, kOperations);
  parallel_for(0, examples, grain, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(kernels::short_attention_scratch(tokens, depth));
    body(begin, end - begin, scratch.data());
  });
}

class ShortAttention : public torch::autograd::Function<ShortAttention> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& qkv, int64_t tokens,
                            int64_t heads, bool causal) {
    const int64_t examples = qkv.size(0) / tokens, depth = qkv.size(1) / (3 * heads);
    const at::Tensor output = at::empty({qkv.size(0), heads * depth}, qkv.options());
    const at::Tensor weights =
        at::empty({examples, heads, tokens, kernels::padded_row(tokens)}, qkv.options());
    for_each_part(
        examples, tokens, heads, depth, [&](int64_t first, int64_t count, float* scratch) {
          kernels::short_attention(
              {.qkv = qkv.const_data_ptr<float>() + first * tokens * 3 * heads * depth,
               .weights = weights.mutable_data_ptr<float>() +
                          first * heads * tokens * kernels::padded_row(tokens),
               .output = output.mutable_data_ptr<float>() + first * tokens * heads * depth,
               .scratch = scratch,
               .examples = count,
               .tokens = tokens,
               .heads = heads,
               .depth = depth,
               .scale = static_cast<float>(score_scale(depth)),
               .causal = causal});
        });
    context->save_for_backward({qkv, weights});
    context->saved_data["causal"] = causal;
    return output;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &qkv = saved[0], &weights = saved[1];
    const int64_t heads = weights.size(1), tokens = weights.size(2);
    if (at::GradMode::is_enabled()) {
      const bool causal = context->saved_data["causal"].toBool();
      const auto reference = [&](at::TensorList x) -> std::vector<at::Tensor> {
        return {short_attention_reference(x[0], tokens, heads, causal)};
      };
      return {reference_gradients(reference, {qkv}, {grads[0]}, 1)[0], {}, {}, {}};
    }
    const int64_t depth = qkv.size(1) / (3 * heads);
    const at::Tensor grad_output = grads[0].contiguous(), grad_qkv = at::empty_like(qkv);
    const int64_t examples = weights.size(0);
    for_each_part(
        examples, tokens, heads, depth, [&](int64_t first, int64_t count, float* scratch) {
          const int64_t row = first * tokens * heads * depth;
          kernels::short_attention_backward(
              {.qkv = qkv.const_data_ptr<float>() + 3 * row,
               .weights =
                   weights.const_data_ptr<float>() + first * heads * tokens * weights.size(3),
               .grad_output = grad_output.const_data_ptr<float>() + row,
               .grad_qkv = grad_qkv.mutable_data_ptr<float>() + 3 * row,
               .scratch = scratch,
               .examples = count,
               .tokens = tokens,
               .heads = heads,
               .depth = depth,
               .scale = static_cast<float>(score_scale(depth))});
        });
    return {grad_qkv, {}, {}, {}};
  }
};

void check(const at::Tensor& qkv, int64_t tokens, int64_t heads) {
  TORCH_CHECK(qkv.dim() == 2 && tokens > 0 && heads > 0 && qkv.size(0) % tokens == 0 &&
                  qkv.size(1) % (3 * heads) == 0,
              "[short_attention] expected qkv [E*", tokens, ",3*", heads, "*D], got ", qkv.sizes());
}

}  // namespace

at::Tensor short_attention_reference(const at::Tensor& qkv, int64_t tokens, int64_t heads,
                                     bool causal) {
  check(qkv, tokens, heads);
  const int64_t examples = qkv.size(0) / tokens, depth = qkv.size(1) / (3 * heads);
  const std::vector<at::Tensor> parts = qkv.reshape({examples, tokens, 3, heads, depth})
                                            .permute({2, 0, 3, 1, 4})
                                            .reshape({3, examples * heads, tokens, depth})
                                            .unbind(0);
  at::Tensor mask = at::full({tokens, tokens}, 0.0, qkv.options());
  if (causal) mask.fill_(-std::numeric_limits<double>::infinity()).triu_(1);
  const at::Tensor scores =
      at::baddbmm(mask, parts[0], parts[1].transpose(1, 2), 1.0, score_scale(depth));
  return at::bmm(at::softmax(scores, -1), parts[2])
      .view({examples, heads, tokens, depth})
      .transpose(1, 2)
      .reshape({examples * tokens, heads * depth});
}

at::Tensor short_attention(const at::Tensor& qkv, int64_t tokens, int64_t heads, bool causal) {
  check(qkv, tokens, heads);
  if (qkv.scalar_type() != at::kFloat || !qkv.is_cpu() || qkv.numel() == 0) {
    return short_attention_reference(qkv, tokens, heads, causal);
  }
  return ShortAttention::apply(qkv.contiguous(), tokens, heads, causal);
}

}  // namespace mnemosyne::ops
