#include "mnemosyne/nn/linear_attention.h"

#include <algorithm>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/copy_module.h"
#include "mnemosyne/nn/feature_map.h"
#include "mnemosyne/nn/heads.h"
#include "mnemosyne/ops/autocast.h"
#include "mnemosyne/ops/linear_attention/check.h"

namespace mnemosyne::nn {
namespace {

using ops::FeatureMapKind;

// Beside the seeds of the projections (attention.h) and of the position (position/position.h).
constexpr uint64_t kOmegaSeed = 4;

// The constant map does not see the tokens.
FeatureMapKind kind_of(const LinearAttentionOptions& o) {
  return ops::feature_map_kind("feature_map", o.feature_map, FeatureMapKind::kConstant);
}

Heads heads_of(const LinearAttentionOptions& o) {
  return {o.embed_dim, o.num_heads, o.num_kv_heads};
}

/// Segments and steps of causal attention go by features, and exponential ones have a common offset
/// that the matrix of weights does without.
void check_exact_length(const LinearAttentionOptions& o, FeatureMapKind kind) {
  if (o.exact_length == 0 || (o.exact_length > 0 && !ops::traits_of(kind).estimates && !o.causal))
    return;
  throw InputError(
      "[attention] expected exact_length of 0, or more with attention to both sides and relu or "
      "elu+1, got " +
      std::to_string(o.exact_length) + " with " + (o.causal ? "causal " : "") + o.feature_map);
}

ops::LinearAttentionResult with_factor(const PositionFactor& factor, LinearCall& call) {
  call.inputs.query_factor = factor.query;
  call.inputs.key_factor = factor.key;
  call.inputs.log_decay = factor.log_decay;
  return ops::linear_attention(call.inputs, call.options);
}

/// [B,H,L,d] to [B,L,H d].
at::Tensor joined_heads(const at::Tensor& mixed) { return mixed.transpose(1, 2).flatten(2); }

/// What passes over the matrix cost beside products, in terms of a product; measured.
constexpr int64_t kMatrixOverhead = 32;

}  // namespace

void bind_choice(Fields& visit, LinearAttentionOptions& o) {
  visit("feature_map", o.feature_map);
  visit("num_features", o.num_features);
  visit("exact_length", o.exact_length);
}

void bind(Fields& visit, LinearAttentionOptions& o) {
  visit("embed_dim", o.embed_dim);
  visit("num_heads", o.num_heads);
  visit("num_kv_heads", o.num_kv_heads);
  visit("causal", o.causal);
  visit("seed", o.seed);
  bind_choice(visit, o);
}

LinearAttentionImpl::LinearAttentionImpl(const LinearAttentionOptions& options)
    : Attention("LinearAttention"), options_(with_seed(options)), kind_(kind_of(options)) {
  check_exact_length(options, kind_);
  const uint64_t seed = *options_.seed;
  const Heads heads =
      add_projections(options.embed_dim, options.num_heads, options.num_kv_heads, seed);
  position_ = make_any_position(options.position, /*linear=*/true,
                                {.causal = options.causal,
                                 .num_heads = options.num_heads,
                                 .depth = heads.depth,
                                 .exact_length = options.exact_length,
                                 .seed = seed});
  if (const auto module = position_->module()) register_module("position", module);
  if (ops::traits_of(kind_).per_vector > 0) {
    const int64_t count = num_omegas(kind_, options.num_features);
    const int64_t depth = heads.depth + position_->num_beside();
    omega = register_buffer("omega",
                            draw_omega(count, depth, part_seed(seed, kOmegaSeed)).to(at::kFloat));
  }
}

at::Tensor LinearAttentionImpl::forward(const at::Tensor& x, const AttentionInputs& inputs) const {
  return output->forward(
      mix_heads(project(x, inputs, heads_of(options_), options_.causal), inputs));
}

at::Tensor LinearAttentionImpl::mix_heads(const Projected& projected,
                                          const AttentionInputs& inputs) const {
  return attend(projected, inputs, nullptr);
}

at::Tensor LinearAttentionImpl::forward_segment(const at::Tensor& x, LinearAttentionMemory& memory,
                                                const AttentionInputs& inputs) const {
  return output->forward(
      mix_heads(project(x, inputs, heads_of(options_), options_.causal), inputs, memory));
}

at::Tensor LinearAttentionImpl::mix_heads(const Projected& projected, const AttentionInputs& inputs,
                                          LinearAttentionMemory& memory) const {
  if (!options_.causal) {
    throw InputError(
        "[attention] expected causal attention without fft for segments, got both directions");
  }
  position_->check_segments();
  TORCH_CHECK(!inputs.context.defined(),
              "[linear_attention] expected no context in causal attention, got one");
  return attend(projected, inputs, &memory);
}

at::Tensor LinearAttentionImpl::step(const at::Tensor& x, LinearAttentionMemory& memory,
                                     const at::Tensor& position) const {
  return forward_segment(x.unsqueeze(1), memory,
                         {.positions = position.defined() ? position.unsqueeze(-2) : position})
      .squeeze(1);
}

PositionFactor LinearAttentionImpl::position_factor(const AttentionInputs& inputs) const {
  // By the matrix of all pairs, where that is taken, positions give no features.
  const bool by_features = position_->rank() > 0 && ops::traits_of(kind_).estimates;
  if (!by_features || options_.causal || !inputs.positions.defined()) return {};
  const ops::NoAutocast positions_as_they_are;
  const at::Tensor& places = inputs.positions;  // as tokens, of which only the number counts
  return position_->factor(position_->place({places, places, places}, inputs, nullptr), nullptr);
}

at::Tensor LinearAttentionImpl::attend(const Projected& projected, const AttentionInputs& inputs,
                                       LinearAttentionMemory* memory) const {
  const Projected apart = heads_of(options_).split(projected);
  const ops::NoAutocast positions_and_sums_as_they_are;
  const bool placed = inputs.factor.query.defined();
  const Places places = placed ? Places{} : position_->place(projected, inputs, memory);
  LinearCall call{.inputs = {.query = apart.query,
                             .key = apart.key,
                             .value = apart.value,
                             .key_padding_mask = inputs.key_padding_mask},
                  .options = {.feature_map = kind_,
                              .omega = omega,
                              .causal = options_.causal,
                              .with_state = memory != nullptr}};
  if (memory != nullptr) call.inputs.state = memory->sums;
  if (placed) return joined_heads(with_factor(inputs.factor, call).output);
  at::Tensor mixed = position_->attend(places, call);
  if (!mixed.defined()) mixed = mix(places, memory, call);
  if (memory != nullptr) memory->length += projected.query.size(1);
  return joined_heads(mixed);
}

at::Tensor LinearAttentionImpl::mix(const Places& places, LinearAttentionMemory* memory,
                                    LinearCall& call) const {
  position_->encode(places, memory, call);
  if (position_->rank() > 0) {
    if (memory == nullptr && takes_pairs(places, call)) {
      position_->check(places);
      return ops::linear_attention_dense(call.inputs, call.options,
                                         position_->factor_of_pairs(places));
    }
  }
  const ops::LinearAttentionResult result = with_factor(
      position_->rank() > 0 ? position_->factor(places, memory) : PositionFactor{}, call);
  if (memory != nullptr) memory->sums = result.state;
  return result.output;
}

// Whether the matrix of all weights takes less work than `ops::linear_attention`, which goes
// through sums of M features times R of the position or, in its kernel, pairs of tokens, causal
// ones once, but their R for every example of the batch.
bool LinearAttentionImpl::takes_pairs(const Places& places, const LinearCall& call) const {
  const PairMatrix matrix = position_->pair_matrix(places);
  if (matrix != PairMatrix::kWhereCheaper) return matrix == PairMatrix::kAlways;
  if (ops::traits_of(kind_).estimates) return false;
  const ops::LinearAttentionInputs& in = call.inputs;
  const int64_t keys = in.key.size(2), depth = in.value.size(3), rank = position_->rank();
  const int64_t features = omega.defined() ? omega.size(0) : in.query.size(3);
  if (std::max(in.query.size(2), keys) > kLargestMatrix) return false;
  const int64_t pair = features + rank + depth;
  if (!ops::linear_attention_is_fused({.query = in.query})) {
    return keys * pair <= rank * features * depth;
  }
  const int64_t shared = rank / std::max<int64_t>(in.query.size(0), 1);
  return features + depth + shared + kMatrixOverhead < pair / (options_.causal ? 2 : 1);
}

std::shared_ptr<torch::nn::Module> LinearAttentionImpl::clone(
    const std::optional<at::Device>& device) const {
  const auto copy = std::make_shared<LinearAttentionImpl>(options_);
  copy_module(*this, *copy, device);
  return copy;
}

}  // namespace mnemosyne::nn
