#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "mnemosyne/ops/large_tensor.h"
#include "mnemosyne/ops/linear_attention/check.h"
#include "mnemosyne/ops/linear_attention/fused.h"
#include "mnemosyne/ops/linear_attention/problem.h"
#include "mnemosyne/ops/parallel.h"

namespace mnemosyne::ops {
namespace {

/// How many tasks, of `heads` heads each, are worth waking up a thread.
int64_t grain(const LinearAttentionShape& s, int64_t heads) {
  constexpr int64_t kOperations = 200'000;
  const int64_t work = (s.queries + s.keys) * s.rank * s.features * (s.value_depth + s.depth);
  return std::max<int64_t>(1, kOperations / std::max<int64_t>(heads * work, 1));
}

/// Calls `body(task, scratch)` for every task, on the threads that are worth it. The scratch of all
/// of them is one tensor, which a profiler of memory sees.
template <typename Body>
void for_each_task(int64_t tasks, int64_t grain, int64_t scratch_floats, const Body& body) {
  const at::Tensor scratch = at::empty({parallel_width(tasks, grain), scratch_floats}, at::kFloat);
  parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    float* mine = scratch.mutable_data_ptr<float>() + at::get_thread_num() * scratch_floats;
    for (int64_t task = begin; task < end; ++task) body(task, mine);
  });
}

LinearAttentionSaved new_outputs(const LinearAttentionShape& s, bool with_state) {
  const auto empty = [](at::IntArrayRef sizes) { return at::empty(sizes, at::kFloat); };
  const int64_t features = with_state ? s.rank * s.features : 0;
  return {.result = {.output = empty_large({s.batch, s.heads, s.queries, s.value_depth}),
                     .state = {.sums = empty({s.batch, s.heads, features, s.value_depth}),
                               .normalizer = empty({s.batch, s.heads, features}),
                               .offset = empty({s.batch, s.heads})}},
          .inverse = empty({s.batch, s.heads, s.queries})};
}

void set_outputs(const LinearAttentionSaved& saved, kernels::LinearAttentionParams& params) {
  params.output = target(saved.result.output);
  params.inverse = target(saved.inverse);
  params.next_sums = target(saved.result.state.sums);
  params.next_normalizer = target(saved.result.state.normalizer);
  params.next_offset = target(saved.result.state.offset);
}

/// Each pass chooses on its own; a state that is not there is built again.
bool takes_blocks(const kernels::LinearAttentionParams& params, bool backward) {
  return params.sums == nullptr && params.next_sums == nullptr &&
         kernels::attention_prefers_blocks(params.sizes, params.features, params.causal, backward);
}

/// Zeros where the kernel adds up; nothing for tensors that are not there. Where positions of some
/// kind differ between the examples, gradients of all kinds are those of each example.
std::array<at::Tensor, kNumDifferentiable> new_gradients(const LinearAttentionProblem& call) {
  const LinearAttentionInputs& in = call.inputs;
  const auto zeros = [](const at::Tensor& x) {
    return x.defined() ? at::zeros(x.sizes(), at::kFloat) : at::Tensor();
  };
  const auto table = [&](const at::Tensor& x) {
    if (!x.defined() || x.dim() == 4 || !call.has_own_positions()) return zeros(x);
    return at::zeros({call.shape.batch, x.size(0), x.size(1), x.size(2)}, at::kFloat);
  };
  return {empty_large(in.query.sizes()),
          empty_large(in.key.sizes()).zero_(),
          empty_large(in.value.sizes()).zero_(),
          table(in.query_factor),
          table(in.key_factor),
          {},
          zeros(in.query_log),
          zeros(in.key_log),
          zeros(in.state.sums),
          zeros(in.state.normalizer)};
}

/// Runs the backward kernel on all heads. Heads that share keys go one after the other, and so do
/// the examples where the batch shares a gradient: sums have one order, whatever the threads.
void run_backward(const LinearAttentionProblem& call,
                  const kernels::LinearAttentionBackwardParams& params) {
  const LinearAttentionShape& s = call.shape;
  const bool shared = (params.grad_query_factor.data != nullptr && !call.has_own_positions()) ||
                      params.grad_query_log != nullptr || params.grad_key_log != nullptr;
  const int64_t group = s.heads / s.key_heads, serial = shared ? s.batch : 1;
  const int64_t tasks = shared ? s.key_heads : s.batch * s.key_heads;
  const int64_t floats = kernels::linear_attention_backward_scratch(params.forward);
  for_each_task(tasks, grain(s, serial * group), floats, [&](int64_t task, float* scratch) {
    for (int64_t turn = 0; turn < serial; ++turn) {
      const int64_t example = shared ? turn : task / s.key_heads;
      const int64_t first = example * s.heads + task % s.key_heads * group;
      kernels::linear_attention_backward({params, first, first + group, scratch});
    }
  });
}

/// What the last state gets from all keys and earlier states, [H,R] in float64: the inner product
/// with its gradient. For each example [B,H,R], or of all.
at::Tensor given_to_state(const LinearAttentionState& state, const at::Tensor& grad_sums,
                          const at::Tensor& grad_normalizer, int64_t rank, bool each) {
  const at::Tensor sums = grad_sums * state.sums, normalizer = grad_normalizer * state.normalizer;
  const at::Tensor total = each ? sums.sum(3, false, at::kDouble) + normalizer
                                : sums.sum(at::IntArrayRef{0, 3}, false, at::kDouble) +
                                      normalizer.sum(0, false, at::kDouble);
  return total.unflatten(-1, {rank, -1}).sum(-1);
}

/// The gradient of log_decay, [H,L,R] or, as gradients of factors are, with a batch. g_t scales
/// what passes from keys before t to queries from t on, or to the state after all of them: what
/// these queries get from any key, less what keys from t on give to any query or to the state, plus
/// what all keys give to that state (`given` [(B,)H,R]).
at::Tensor decay_gradient(const LinearAttentionInputs& in, const at::Tensor& grad_query_factor,
                          const at::Tensor& grad_key_factor, at::Tensor given) {
  constexpr int64_t kDecays = 32768;  // worth waking up a thread
  const int64_t heads = in.query_factor.size(-3), rank = in.query_factor.size(-1);
  const int64_t size = in.query_factor.size(-2) * rank;  // of a head
  at::Tensor grad = at::empty(grad_query_factor.sizes(), at::kFloat);
  const auto p = tables_of(in.query_factor), s = tables_of(in.key_factor);
  const float *up_p = pointer(grad_query_factor), *up_s = pointer(grad_key_factor);
  float* to = target(grad);
  double* totals = given.mutable_data_ptr<double>();
  const int64_t grain = std::max<int64_t>(1, kDecays / std::max<int64_t>(size, 1));
  parallel_for(0, given.numel() / rank, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t example = row / heads, head = row % heads, first = row * size;
      const float* queries = p.data + example * p.batch + head * size;
      const float* keys = s.data + example * s.batch + head * size;
      double* total = totals + row * rank;
      for (int64_t k = size - 1; k >= 0; --k) {
        double& sum = total[k % rank];
        sum += static_cast<double>(queries[k]) * up_p[first + k] -
               static_cast<double>(keys[k]) * up_s[first + k];
        to[first + k] = static_cast<float>(sum);
      }
    }
  });
  return grad;
}

/// In the dtype of `like`, summed over the batch where that shares it.
at::Tensor as(const at::Tensor& grad, const at::Tensor& like) {
  if (!grad.defined()) return grad;
  return (grad.dim() > like.dim() ? grad.sum(0) : grad).to(like.scalar_type());
}

}  // namespace

LinearAttentionSaved linear_attention_fused(const LinearAttentionInputs& inputs,
                                            const LinearAttentionOptions& options) {
  LinearAttentionProblem call(inputs, options);
  const LinearAttentionShape& s = call.shape;
  LinearAttentionSaved saved = new_outputs(s, options.with_state);
  set_outputs(saved, call.params);
  call.params.by_blocks = takes_blocks(call.params, /*backward=*/false);
  const int64_t floats = kernels::linear_attention_forward_scratch(call.params);
  for_each_task(s.batch * s.heads, grain(s, 1), floats, [&](int64_t item, float* scratch) {
    kernels::linear_attention_forward({call.params, item, item + 1, scratch});
  });
  saved.result.output = saved.result.output.to(inputs.query.scalar_type());
  return saved;
}

std::array<at::Tensor, kNumDifferentiable> linear_attention_fused_backward(
    const LinearAttentionInputs& inputs, const LinearAttentionOptions& options,
    const LinearAttentionSaved& saved, const LinearAttentionGradients& grads) {
  const LinearAttentionProblem call(inputs, options);
  LinearAttentionSaved dense = saved;
  dense.result.output = dense_float(saved.result.output);
  dense.result.state.sums = dense_float(saved.result.state.sums);
  dense.result.state.normalizer = dense_float(saved.result.state.normalizer);
  dense.result.state.offset = dense_float(saved.result.state.offset);
  dense.inverse = dense_float(saved.inverse);
  const at::Tensor grad_output = grads.output.defined()
                                     ? float_rows(grads.output)
                                     : at::zeros(dense.result.output.sizes(), at::kFloat);
  at::Tensor grad_sums, grad_normalizer;
  if (saved.result.state.sums.size(2) > 0) {
    grad_sums = dense_float(grads.sums);
    grad_normalizer = dense_float(grads.normalizer);
  }
  if (grad_sums.defined() != grad_normalizer.defined()) {
    if (!grad_sums.defined()) grad_sums = at::zeros_like(dense.result.state.sums);
    if (!grad_normalizer.defined()) grad_normalizer = at::zeros_like(dense.result.state.normalizer);
  }
  std::array<at::Tensor, kNumDifferentiable> result = new_gradients(call);
  kernels::LinearAttentionBackwardParams params{
      .forward = call.params,
      .grad_output = rows_of(grad_output),
      .grad_next_sums = pointer(grad_sums),
      .grad_next_normalizer = pointer(grad_normalizer),
      .grad_query = target(result[kQuery]),
      .grad_key = target(result[kKey]),
      .grad_value = target(result[kValue]),
      .grad_query_factor = target_tables(result[kQueryFactor]),
      .grad_key_factor = target_tables(result[kKeyFactor]),
      .grad_query_log = target(result[kQueryLog]),
      .grad_key_log = target(result[kKeyLog]),
      .grad_sums = target(result[kStateSums]),
      .grad_normalizer = target(result[kStateNormalizer])};
  set_outputs(dense, params.forward);
  params.forward.by_blocks = takes_blocks(params.forward, /*backward=*/true);
  run_backward(call, params);
  if (call.decay.defined()) {
    const at::Tensor& up = result[kQueryFactor];
    const at::Tensor given = grad_sums.defined()
                                 ? given_to_state(dense.result.state, grad_sums, grad_normalizer,
                                                  up.size(-1), /*each=*/up.dim() == 4)
                                       .contiguous()
                                 : up.narrow(-2, 0, 0).sum(-2, false, at::kDouble);
    result[kLogDecay] = decay_gradient(call.inputs, up, result[kKeyFactor], given);
  }
  const double scale = linear_attention_scale(options, call.shape.depth);
  if (options.feature_map == FeatureMapKind::kElu && scale != 1) {
    result[kQuery].mul_(scale);
    result[kKey].mul_(scale);
  }
  const at::Tensor* like[] = {&inputs.query,           &inputs.key,        &inputs.value,
                              &inputs.query_factor,    &inputs.key_factor, &inputs.log_decay,
                              &inputs.query_log,       &inputs.key_log,    &inputs.state.sums,
                              &inputs.state.normalizer};
  for (size_t i = 0; i < result.size(); ++i) result[i] = as(result[i], *like[i]);
  return result;
}

}  // namespace mnemosyne::ops
