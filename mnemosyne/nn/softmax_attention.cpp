#include "mnemosyne/nn/softmax_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_scaled_dot_product_attention_math.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/zeros.h>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/copy_module.h"
#include "mnemosyne/nn/heads.h"
#include "mnemosyne/nn/position/placed_tokens.h"
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
  if (const auto* rotary = std::get_if<RotaryPositionOptions>(&options.position)) {
    check_rotary(*rotary, heads.depth);
  } else if (const auto* mask = std::get_if<FourierPositionOptions>(&options.position)) {
    fourier = register_module("position",
                              FourierPosition(for_heads(*mask, options.num_heads, *options_.seed)));
  } else if (const auto* fading = std::get_if<DampedPositionOptions>(&options.position)) {
    if (!options.causal) {
      throw InputError("[attention] expected causal attention for damped, got both directions");
    }
    damped = register_module("position",
                             DampedPosition(for_heads(*fading, options.num_heads, *options_.seed)));
  } else if (const auto* bias = std::get_if<BucketBiasOptions>(&options.position)) {
    BucketBiasOptions own = *bias;
    own.num_heads = options.num_heads;
    own.causal = options.causal;
    buckets = register_module("position", BucketBias(own));
  }
}

// [H, ...] for offsets [..., P].
at::Tensor SoftmaxAttentionImpl::bias_of(const at::Tensor& offsets) const {
  if (fourier) return fourier->mask(offsets);
  // Later keys are hidden anyway; the logarithm of zero would have no gradient.
  if (damped) return damped->mask(offsets.masked_fill(offsets < 0, 0));
  if (buckets) return buckets->forward(offsets);
  return alibi_bias(offsets, options_.num_heads, std::get<AlibiOptions>(options_.position));
}

// [H,L,S] or [B,H,L,S].
at::Tensor SoftmaxAttentionImpl::bias(const at::Tensor& x, const at::Tensor& source,
                                      const AttentionInputs& inputs) const {
  const bool cross = inputs.context.defined();
  const at::Tensor& has = inputs.has_position;
  const at::Tensor& source_has = cross ? inputs.context_has_position : has;
  if (!inputs.positions.defined() && !cross && !has.defined()) {
    // The tokens of a line have 2 L - 1 offsets, not L^2.
    const int64_t length = x.size(1);
    const at::TensorOptions wide = x.options().dtype(at::kDouble).requires_grad(false);
    const at::Tensor lags = bias_of(at::arange(1 - length, length, wide).unsqueeze(-1));
    const at::Tensor token = at::arange(length, wide.dtype(at::kLong));
    const at::Tensor lag = token.unsqueeze(1) - token.unsqueeze(0) + (length - 1);
    return lags.index_select(1, lag.reshape({-1})).view({-1, length, length});
  }
  const PlacedTokens places =
      place_tokens(x, inputs.positions, has, cross ? at::Tensor() : inputs.key_padding_mask, 0);
  at::Tensor from = zero_unplaced(places.positions, has);
  if (damped) {
    const OrderedLine line = ordered_line(places, {});
    ops::line_gaps(line.positions);  // refuses steps back
    from = line.positions.unsqueeze(-1);
  }
  const at::Tensor to =
      cross ? zero_unplaced(positions_or_line(inputs.context_positions, source, 0), source_has)
            : from;
  at::Tensor result = bias_of(from.unsqueeze(-2) - to.unsqueeze(-3));  // [H,(B,)L,S]
  const auto hide = [&](const at::Tensor& placed, int64_t axis) {
    if (placed.defined()) result = result.masked_fill(placed.logical_not().unsqueeze(axis), 0);
  };
  if (result.dim() == 3 && (has.dim() == 2 || source_has.dim() == 2)) {
    result = result.unsqueeze(1).expand({-1, x.size(0), -1, -1});
  }
  hide(has, -1);
  hide(source_has, -2);
  return result.dim() == 4 ? result.transpose(0, 1) : result;
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
  const bool cross = inputs.context.defined();
  const at::Tensor &x = projected.query, &source = projected.key;
  const int64_t group = heads.queries / heads.keys;
  v = repeat_heads(v, group);
  const auto* rotary = std::get_if<RotaryPositionOptions>(&options_.position);
  at::Tensor bias_or_none;
  if (rotary != nullptr) {
    const auto turned = [&](const at::Tensor& y, const at::Tensor& tokens, const at::Tensor& place,
                            const at::Tensor& has) {
      return rotate_by_position(y, zero_unplaced(positions_or_line(place, tokens, 0), has),
                                *rotary);
    };
    q = turned(q, x, inputs.positions, inputs.has_position);
    k = cross ? turned(k, source, inputs.context_positions, inputs.context_has_position)
              : turned(k, x, inputs.positions, inputs.has_position);
  } else if (!std::holds_alternative<std::monostate>(options_.position)) {
    bias_or_none = bias(x, source, inputs).to(q.scalar_type());
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
