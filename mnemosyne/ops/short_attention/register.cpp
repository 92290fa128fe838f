#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <vector>

#include "mnemosyne/ops/reference_gradient.h"
#include "mnemosyne/ops/short_attention/fused.h"
#include "mnemosyne/ops/short_attention/short_attention.h"

namespace mnemosyne::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class ShortAttention : public torch::autograd::Function<ShortAttention> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& qkv, int64_t tokens,
                            int64_t heads, bool causal) {
    const ShortAttentionSaved saved = short_attention_fused(qkv, tokens, heads, causal);
    context->save_for_backward({qkv, saved.weights});
    context->saved_data["causal"] = causal;
    return saved.output;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &qkv = saved[0], &weights = saved[1];
    if (!at::GradMode::is_enabled()) {
      return {short_attention_fused_backward(qkv, weights, grads[0].contiguous()), {}, {}, {}};
    }
    const bool causal = context->saved_data["causal"].toBool();
    const auto reference = [&](at::TensorList x) -> std::vector<at::Tensor> {
      return {short_attention_reference(x[0], weights.size(2), weights.size(1), causal)};
    };
    return {reference_gradients(reference, {qkv}, {grads[0]}, 1)[0], {}, {}, {}};
  }
};

}  // namespace

at::Tensor short_attention(const at::Tensor& qkv, int64_t tokens, int64_t heads, bool causal) {
  check_short_attention(qkv, tokens, heads);
  if (qkv.scalar_type() != at::kFloat || !qkv.is_cpu() || qkv.numel() == 0) {
    return short_attention_reference(qkv, tokens, heads, causal);
  }
  return ShortAttention::apply(qkv.contiguous(), tokens, heads, causal);
}

}  // namespace mnemosyne::ops
