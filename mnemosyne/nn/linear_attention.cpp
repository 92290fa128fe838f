#include "mnemosyne/nn/linear_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/copy_module.h"
#include "mnemosyne/nn/feature_map.h"
#include "mnemosyne/nn/heads.h"
#include "mnemosyne/nn/position/fft_attention.h"
#include "mnemosyne/ops/autocast.h"
#include "mnemosyne/ops/linear_attention/check.h"

namespace mnemosyne::nn {
namespace {

using ops::FeatureMapKind;

// Beside the seeds of the projections and of the position (attention.h).
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

/// What passes over the matrix cost beside products, in terms of a product; measured.
constexpr int64_t kMatrixOverhead = 32;

}  // namespace

void bind(Fields& visit, FftMaskOptions& o) {
  bind(visit, o.mask);
  visit("columns", o.columns);
}

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

struct LinearAttentionImpl::Tokens {
  at::Tensor query{}, key{}, value{};  // [B,H,L,d], [B,Hk,S,d]
  at::Tensor mask{};                   // bool [B,S]
  PlacedTokens places{};
  PlacedTokens source_places{};  // Of the context, if there is one.
  bool cross = false;

  const PlacedTokens& sources() const { return cross ? source_places : places; }
  bool has_unplaced() const {
    return places.has_position.defined() || sources().has_position.defined();
  }
};

LinearAttentionImpl::LinearAttentionImpl(const LinearAttentionOptions& options)
    : Attention("LinearAttention"), options_(with_seed(options)), kind_(kind_of(options)) {
  check_exact_length(options, kind_);
  const uint64_t seed = *options_.seed;
  const Heads heads =
      add_projections(options.embed_dim, options.num_heads, options.num_kv_heads, seed);
  int64_t depth = heads.depth;
  if (const auto* rotary = std::get_if<RotaryPositionOptions>(&options.position)) {
    check_rotary(*rotary, heads.depth);
  } else if (const auto* mask = std::get_if<FourierPositionOptions>(&options.position)) {
    fourier =
        register_module("position", FourierPosition(for_heads(*mask, options.num_heads, seed)));
    if (!fourier->multiplicative()) depth += fourier->num_features();
  } else if (const auto* fft = std::get_if<FftMaskOptions>(&options.position)) {
    const int64_t dim = fft->mask.position_dim;
    if (dim != (fft->columns > 0 ? 2 : 1) || (options.causal && dim == 2)) {
      throw InputError(
          "[attention] expected a line or, not causal, a plane with columns for fft, "
          "got position_dim " +
          std::to_string(dim) + " and " + std::to_string(fft->columns) + " columns");
    }
    FourierPositionOptions exact = for_heads(fft->mask, options.num_heads, seed);
    exact.coupling = "multiplicative";
    fourier = register_module("position", FourierPosition(exact));
  } else if (const auto* fading = std::get_if<DampedPositionOptions>(&options.position)) {
    if (!options.causal) {
      throw InputError("[attention] expected causal attention for damped, got both directions");
    }
    damped =
        register_module("position", DampedPosition(for_heads(*fading, options.num_heads, seed)));
  }
  if (ops::traits_of(kind_).per_vector > 0) {
    const int64_t count = num_omegas(kind_, options.num_features);
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
  if (!options_.causal || std::holds_alternative<FftMaskOptions>(options_.position)) {
    throw InputError("[attention] expected causal attention without fft for segments, got " +
                     std::string(options_.causal ? "fft" : "both directions"));
  }
  if (fourier && fourier->grows()) {
    throw InputError(
        "[attention] expected an extent for segments, whose features have to agree, got none");
  }
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

at::Tensor LinearAttentionImpl::attend(const Projected& projected, const AttentionInputs& inputs,
                                       LinearAttentionMemory* memory) const {
  const Projected apart = heads_of(options_).split(projected);
  const ops::NoAutocast positions_and_sums_as_they_are;
  const at::Tensor &x = projected.query, &source = projected.key;
  Tokens tokens{.query = apart.query,
                .key = apart.key,
                .value = apart.value,
                .mask = inputs.key_padding_mask,
                .cross = inputs.context.defined()};
  const bool fft = std::holds_alternative<FftMaskOptions>(options_.position);
  if (fft) {
    tokens.places.has_position = inputs.has_position;
  } else if (!std::holds_alternative<std::monostate>(options_.position)) {
    tokens.places =
        place_tokens(x, inputs.positions, inputs.has_position,
                     tokens.cross ? at::Tensor() : tokens.mask, memory ? memory->length : 0);
    if (tokens.cross) {
      tokens.source_places = place_tokens(source, inputs.context_positions,
                                          inputs.context_has_position, tokens.mask, 0);
    }
  }
  at::Tensor mixed;
  if (fft) {
    TORCH_CHECK(tokens.key.size(2) == tokens.query.size(2) && !tokens.places.has_position.defined(),
                "[linear_attention] expected the tokens of one grid, all of them placed, for fft");
    mixed = fft_attention({.query = tokens.query,
                           .key = tokens.key,
                           .value = tokens.value,
                           .key_padding_mask = tokens.mask,
                           .omega = omega,
                           .feature_map = kind_,
                           .causal = options_.causal,
                           .columns = std::get<FftMaskOptions>(options_.position).columns},
                          fourier);
  } else {
    mixed = mix(tokens, memory);
  }
  if (memory != nullptr) memory->length += x.size(1);
  return mixed.transpose(1, 2).flatten(2);
}

at::Tensor LinearAttentionImpl::mix(Tokens& tokens, LinearAttentionMemory* memory) const {
  ops::LinearAttentionOptions call{.feature_map = kind_,
                                   .omega = omega,
                                   .causal = options_.causal,
                                   .scale = {},
                                   .with_state = memory != nullptr};
  ops::LinearAttentionInputs in;
  if (memory != nullptr) in.state = memory->sums;
  if (const auto* rotary = std::get_if<RotaryPositionOptions>(&options_.position)) {
    const auto turned = [&](const at::Tensor& y, const PlacedTokens& t) {
      return rotate_by_position(y, zero_unplaced(t.positions, t.has_position), *rotary);
    };
    tokens.query = turned(tokens.query, tokens.places);
    tokens.key = turned(tokens.key, tokens.sources());
  } else if (fourier && !fourier->multiplicative()) {
    concatenate(tokens, in, call, memory);
  } else if (fourier || damped) {
    OrderedLine line;
    if (damped) {
      line = ordered_line(tokens.places, memory != nullptr ? memory->last : at::Tensor());
      tokens.places.positions = line.positions.unsqueeze(-1);
    }
    if (memory != nullptr || !is_short(tokens)) return multiply(tokens, line, in, call, memory);
    if (damped) ops::line_gaps(line.positions);  // refuses steps back, as `multiply` does
  }
  in.query = tokens.query;
  in.key = tokens.key;
  in.value = tokens.value;
  in.key_padding_mask = tokens.mask;
  if ((fourier && fourier->multiplicative()) || damped) {
    return ops::linear_attention_dense(in, call, factor_of_pairs(tokens));
  }
  ops::LinearAttentionResult result = ops::linear_attention(in, call);
  if (memory != nullptr) memory->sums = result.state;
  return result.output;
}

// Of queries and of keys, each [H,.,N] or [B,H,.,N].
ops::PositionFeatures LinearAttentionImpl::features(const Tokens& tokens,
                                                    LinearAttentionMemory* memory) const {
  at::Tensor none;
  at::Tensor& span = memory != nullptr ? memory->span : none;
  return damped ? damped->features(tokens.places.positions, tokens.places.has_position)
                : fourier->features(tokens.places, tokens.sources(), span);
}

// Positive features of content and position side by side are products: one exponent for the content
// and one, which the batch shares, for the position.
void LinearAttentionImpl::concatenate(Tokens& tokens, ops::LinearAttentionInputs& in,
                                      ops::LinearAttentionOptions& call,
                                      LinearAttentionMemory* memory) const {
  const ops::PositionFeatures features = this->features(tokens, memory);
  const int64_t depth = tokens.query.size(-1), size = features.query.size(-1);
  if (!ops::traits_of(kind_).exponential || features.query.dim() == 4 ||
      features.key.dim() == 4) {
    const int64_t group = tokens.query.size(1) / tokens.key.size(1);
    tokens.key = repeat_heads(tokens.key, group);
    tokens.value = repeat_heads(tokens.value, group);
    std::tie(tokens.query, tokens.key) = fourier->join(tokens.query, tokens.key, features);
    call.scale = 1.0;
    return;
  }
  const double total = static_cast<double>(depth + size);
  const bool released = fourier->options().released_code;
  call.scale = 1.0 / std::sqrt(released ? total : static_cast<double>(depth));
  call.omega = omega.narrow(1, 0, depth);
  const double place = released ? std::pow(static_cast<double>(depth) / total, 0.25) : 1.0;
  const at::Tensor vectors = omega.narrow(1, depth, size);
  const auto exponents = [&](const at::Tensor& position) {
    const at::Tensor projection = at::matmul(position, vectors.to(position.scalar_type()).t());
    const bool paired = ops::traits_of(kind_).per_vector == 2;
    return paired ? at::cat({projection, -projection}, -1) : projection;
  };
  const at::Tensor key_position = features.key * place;
  in.query_log = exponents(features.query * place);
  in.key_log = exponents(key_position) - key_position.square().sum(-1, /*keepdim=*/true) * 0.5;
}

bool LinearAttentionImpl::is_exact(const Tokens& tokens) const {
  return fourier && fourier->multiplicative() &&
         std::max(tokens.query.size(2), tokens.key.size(2)) <= options_.exact_length;
}

// Whether the matrix of all weights takes less work than `ops::linear_attention`, which goes
// through sums of M features times R of the position or, in its kernel, pairs of tokens, causal
// ones once, but their R for every example of the batch.
bool LinearAttentionImpl::is_short(const Tokens& tokens) const {
  if (is_exact(tokens)) return true;
  if (ops::traits_of(kind_).estimates) return false;
  if (damped && tokens.places.has_position.defined()) return false;
  const int64_t keys = tokens.key.size(2), depth = tokens.value.size(3);
  const int64_t rank = damped ? damped->num_features() : fourier->num_features();
  const int64_t features = omega.defined() ? omega.size(0) : tokens.query.size(3);
  if (std::max(tokens.query.size(2), keys) > kLargestMatrix) return false;
  const int64_t pair = features + rank + depth;
  if (!ops::linear_attention_is_fused({.query = tokens.query})) {
    return keys * pair <= rank * features * depth;
  }
  const int64_t shared = rank / std::max<int64_t>(tokens.query.size(0), 1);
  return features + depth + shared + kMatrixOverhead < pair / (options_.causal ? 2 : 1);
}

// The factor of every query and key, [H,L,S] or [B,H,L,S].
at::Tensor LinearAttentionImpl::factor_of_pairs(const Tokens& tokens) const {
  if (!damped && !is_exact(tokens)) {
    const ops::PositionFeatures all = features(tokens, nullptr);
    return at::matmul(all.query, all.key.mT());
  }
  const PlacedTokens &queries = tokens.places, &keys = tokens.sources();
  const at::Tensor x = zero_unplaced(queries.positions, queries.has_position);
  const at::Tensor y = zero_unplaced(keys.positions, keys.has_position);
  const at::Tensor offsets = x.unsqueeze(-2) - y.unsqueeze(-3);
  at::Tensor factor = damped ? damped->factor(offsets) : fourier->factor(offsets);
  if (factor.dim() == 4) factor = factor.transpose(0, 1);
  if (!tokens.has_unplaced()) return factor;
  at::Tensor both = queries.placed().unsqueeze(-1).logical_and(keys.placed().unsqueeze(-2));
  if (both.dim() == 3) both = both.unsqueeze(1);
  return at::where(both, factor, 1.0);
}

at::Tensor LinearAttentionImpl::multiply(const Tokens& tokens, const OrderedLine& line,
                                         ops::LinearAttentionInputs& in,
                                         const ops::LinearAttentionOptions& call,
                                         LinearAttentionMemory* memory) const {
  const ops::PositionFeatures features = this->features(tokens, memory);
  if (damped && line.positions.size(-1) > 0) {
    in.log_decay = ops::log_decay(features.decay, line.positions,
                                  memory != nullptr ? memory->last : at::Tensor());
    if (memory != nullptr) memory->last = line.last;
  }
  in.query = tokens.query;
  in.key = tokens.key;
  in.value = tokens.value;
  in.query_factor = features.query;
  in.key_factor = features.key;
  in.key_padding_mask = tokens.mask;
  const ops::LinearAttentionResult result = ops::linear_attention(in, call);
  if (memory != nullptr) memory->sums = result.state;
  return result.output;
}

std::shared_ptr<torch::nn::Module> LinearAttentionImpl::clone(
    const std::optional<at::Device>& device) const {
  const auto copy = std::make_shared<LinearAttentionImpl>(options_);
  copy_module(*this, *copy, device);
  return copy;
}

}  // namespace mnemosyne::nn
