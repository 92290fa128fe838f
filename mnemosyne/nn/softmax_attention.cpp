#include "mnemosyne/nn/softmax_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_scaled_dot_product_attention_math.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/zeros.h>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/copy_module.h"
#include "mnemosyne/nn/heads.h"
#include "mnemosyne/ops/autocast.h"
#include "mnemosyne/ops/masked_attention.h"

namespace mnemosyne::nn {
namespace {

// Finite: rows without any key get the mean of all values, not NaN.
constexpr double kHidden = -1e30;

// Softmax attention without a bias. The fused kernel has no second derivative, which a loss of
// forces needs: where positions are differentiated, plain products take its place.
at::Tensor unbiased(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal,
                    bool twice) {
  if (!twice) return at::scaled_dot_product_attention(q, k, v, {}, 0.0, causal);
  return std::get<0>(at::_scaled_dot_product_attention_math(q, k, v, {}, 0.0, causal));
}

}  // namespace

void bind(Fields& visit, SoftmaxAttentionOptions& o) {
  visit("embed_dim", o.embed_dim);
  visit("num_heads", o.num_heads);
  visit("num_kv_heads", o.num_kv_heads);
  visit("causal", o.causal);
  visit("seed", o.seed);
}

SoftmaxAttentionImpl::SoftmaxAttentionImpl(const SoftmaxAttentionOptions& options)
    : Attention("SoftmaxAttention"), options_(with_seed(options)) {
  const Heads heads =
      add_projections(options.embed_dim, options.num_heads, options.num_kv_heads, *options_.seed);
  position_ = make_any_position(options.position, /*linear=*/false,
                                {.causal = options.causal,
                                 .num_heads = options.num_heads,
                                 .depth = heads.depth,
                                 .seed = *options_.seed});
  if (const auto module = position_->module()) register_module("position", module);
}

// [H,L,S] or [B,H,L,S].
at::Tensor SoftmaxAttentionImpl::bias(const at::Tensor& x, const AttentionInputs& inputs,
                                      const Places& places) const {
  if (!inputs.positions.defined() && !places.cross && places.all_placed()) {
    // The tokens of a line have 2 L - 1 offsets, not L^2.
    const int64_t length = x.size(1);
    const at::TensorOptions wide = x.options().dtype(at::kDouble).requires_grad(false);
    const at::Tensor lags = position_->bias(at::arange(1 - length, length, wide).unsqueeze(-1));
    const at::Tensor token = at::arange(length, wide.dtype(at::kLong));
    const at::Tensor lag = token.unsqueeze(1) - token.unsqueeze(0) + (length - 1);
    return lags.index_select(1, lag.reshape({-1})).view({-1, length, length});
  }
  position_->check(places);
  return with_unplaced_pairs(position_->bias(offsets_of_pairs(places)), places, 0.0);
}

at::Tensor SoftmaxAttentionImpl::forward(const at::Tensor& x, const AttentionInputs& inputs) const {
  const Heads heads(options_.embed_dim, options_.num_heads, options_.num_kv_heads);
  return output->forward(mix_heads(project(x, inputs, heads, options_.causal), inputs));
}

at::Tensor SoftmaxAttentionImpl::mix_heads(const Projected& projected,
                                           const AttentionInputs& inputs) const {
  const Heads heads(options_.embed_dim, options_.num_heads, options_.num_kv_heads);
  auto [q, k, v] = heads.split(projected);
  const ops::NoAutocast positions_as_they_are;
  const int64_t group = heads.queries / heads.keys;
  v = repeat_heads(v, group);
  const Places places = position_->place(projected, inputs, /*memory=*/nullptr);
  q = position_->turn(q, places.queries);
  k = position_->turn(k, places.keys());
  at::Tensor bias_or_none;
  if (position_->has_bias()) {
    bias_or_none = bias(projected.query, inputs, places).to(q.scalar_type());
  }
  k = repeat_heads(k, group);
  if (inputs.key_padding_mask.defined()) {
    const at::Tensor hidden = inputs.key_padding_mask.logical_not().unsqueeze(1).unsqueeze(1);
    if (!bias_or_none.defined()) bias_or_none = at::zeros({1, 1, 1, 1}, q.options());
    bias_or_none = bias_or_none.masked_fill(hidden, kHidden);
  }
  const at::Tensor mixed =
      bias_or_none.defined()
          ? ops::softmax_attention_with_bias(q, k, v, bias_or_none, options_.causal)
          : unbiased(q, k, v, options_.causal,
                     inputs.positions.defined() && inputs.positions.requires_grad());
  return mixed.transpose(1, 2).flatten(2);
}

std::shared_ptr<torch::nn::Module> SoftmaxAttentionImpl::clone(
    const std::optional<at::Device>& device) const {
  const auto copy = std::make_shared<SoftmaxAttentionImpl>(options_);
  copy_module(*this, *copy, device);
  return copy;
}

}  // namespace mnemosyne::nn
