#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cummax.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/elu.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "mnemosyne/ops/linear_attention/check.h"
#include "mnemosyne/ops/linear_attention/linear_attention.h"

namespace mnemosyne::ops {
namespace {

using Shape = LinearAttentionShape;

constexpr double kReluOffset = 1e-3;

/// Features factors * e^exponents; either may be undefined (one). Exponents may be [..., 1].
struct Features {
  at::Tensor factors;
  at::Tensor exponents;

  at::Tensor relative_to(const at::Tensor& offset) const {
    if (!exponents.defined()) return factors;
    const at::Tensor weights = (exponents - offset).exp();
    return factors.defined() ? factors * weights : weights;
  }
};

/// x [B,H,T,D], log [H,T,M] or undefined. What all features of a query share cancels, and is left
/// out.
Features features_of(const at::Tensor& x, const at::Tensor& log, bool key,
                     const LinearAttentionOptions& options) {
  if (!options.feature_map.has_value()) return {x, {}};
  const at::Tensor scaled = x * linear_attention_scale(options, x.size(-1));
  if (options.feature_map == FeatureMapKind::kElu) return {at::elu(scaled) + 1, {}};
  const at::Tensor omega = options.omega.to(x.options());
  const at::Tensor projection = at::matmul(scaled, omega.t());
  if (options.feature_map == FeatureMapKind::kRelu) {
    const double factor = 1 / std::sqrt(static_cast<double>(omega.size(0)));
    return {at::relu(projection) * factor + kReluOffset, {}};
  }
  const at::Tensor half_norm = scaled.square().sum(-1, /*keepdim=*/true) * 0.5;
  if (options.feature_map == FeatureMapKind::kTrig) {
    const at::Tensor factors = at::cat({projection.cos(), projection.sin()}, -1);
    return {factors, key ? half_norm : at::Tensor()};
  }
  at::Tensor exponents = projection;
  if (options.feature_map == FeatureMapKind::kHypPlus) {
    exponents = at::cat({projection, -projection}, -1);
  }
  if (key) exponents = exponents - half_norm;
  if (log.defined()) exponents = exponents + log;
  return {{}, exponents};
}

at::Tensor query_features(const LinearAttentionInputs& in, const LinearAttentionOptions& options) {
  const Features features = features_of(in.query, in.query_log, /*key=*/false, options);
  if (!features.exponents.defined()) return features.factors;
  return features.relative_to(features.exponents.detach().amax(-1, /*keepdim=*/true));
}

/// Key features of the chunks and the offset [B,H,S,1] of each key.
struct Keys {
  at::Tensor phi;
  at::Tensor offsets;
};

Keys key_features(const LinearAttentionInputs& in, const LinearAttentionOptions& options,
                  const at::Tensor& offset) {
  const Features features = features_of(in.key, in.key_log, /*key=*/true, options);
  at::Tensor taken;
  if (in.key_padding_mask.defined()) taken = in.key_padding_mask.unsqueeze(1).unsqueeze(-1);
  Keys keys;
  if (features.exponents.defined()) {
    at::Tensor largest = features.exponents.detach().amax(-1, /*keepdim=*/true);
    if (taken.defined()) largest = largest.masked_fill(taken.logical_not(), kNoKeysOffset);
    largest = at::maximum(largest, offset.unsqueeze(-1).unsqueeze(-1));
    keys.offsets = options.causal || largest.size(2) == 0
                       ? std::get<0>(at::cummax(largest, 2))
                       : largest.amax(2, /*keepdim=*/true).expand_as(largest);
  } else {
    keys.offsets = at::zeros({in.key.size(0), in.key.size(1), in.key.size(2), 1}, in.key.options());
  }
  keys.phi = features.relative_to(keys.offsets);
  if (taken.defined()) keys.phi = keys.phi.masked_fill(taken.logical_not(), 0);
  return keys;
}

/// [B,H,T,M] times factors [(B,)H,T,R] to [B,H,T,R*M].
at::Tensor with_factor(const at::Tensor& phi, const at::Tensor& factor) {
  if (!factor.defined()) return phi;
  return (factor.unsqueeze(-1) * phi.unsqueeze(-2)).flatten(-2);
}

at::Tensor slice(const at::Tensor& x, int64_t dim, int64_t first, int64_t count) {
  return x.defined() ? x.narrow(dim, first, count) : x;
}

/// What the position makes of every pair of causal tokens: sum_r p_ir s_jr e^{c_ir - c_jr}
/// [(B,)H,T,T] with c = `faded`, the sums of log_decay; p.s where it is undefined.
at::Tensor pair_factor(const at::Tensor& query_factor, const at::Tensor& key_factor,
                       const at::Tensor& faded) {
  if (!faded.defined()) return at::matmul(query_factor, key_factor.transpose(-1, -2));
  // Later keys by place, not by the sign of the exponent: parts that do not fade have 0 everywhere,
  // where the derivative of a clamp is 1 up to torch 2.13 and 0 from 2.14 on.
  const int64_t tokens = faded.size(-2);
  const at::Tensor later =
      at::ones({tokens, tokens}, faded.options().dtype(at::kBool)).triu(1).unsqueeze(-1);
  const at::Tensor fading = (faded.unsqueeze(-2) - faded.unsqueeze(-3)).masked_fill(later, 0).exp();
  return at::einsum("...ir,...jr,...ijr->...ij", {query_factor, key_factor, fading});
}

at::Tensor floored(const at::Tensor& denominator, double floor) {
  const at::Tensor bound = at::where(denominator < 0, -floor, floor).to(denominator.options());
  return at::where(denominator.abs() < floor, bound, denominator);
}

/// Everything in the dtype of computation, with as many heads of keys as of queries.
LinearAttentionInputs prepared(const LinearAttentionInputs& in, const Shape& s) {
  const at::ScalarType type = in.query.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  LinearAttentionInputs result = in;
  for (at::Tensor* x : {&result.query, &result.key, &result.value, &result.query_factor,
                        &result.key_factor, &result.log_decay, &result.query_log, &result.key_log,
                        &result.state.sums, &result.state.normalizer, &result.state.offset}) {
    if (x->defined()) *x = x->to(type);
  }
  if (s.heads != s.key_heads) {
    result.key = result.key.repeat_interleave(s.heads / s.key_heads, 1);
    result.value = result.value.repeat_interleave(s.heads / s.key_heads, 1);
  }
  if (in.key_padding_mask.defined()) {
    // Zero times what a masked key holds would not be zero for infinities.
    const at::Tensor masked = in.key_padding_mask.logical_not().unsqueeze(1).unsqueeze(-1);
    result.key = result.key.masked_fill(masked, 0);
    result.value = result.value.masked_fill(masked, 0);
  }
  return result;
}

/// The state to start from, in the dtype of computation.
LinearAttentionState first_state(const LinearAttentionInputs& in,
                                 const LinearAttentionOptions& options, const Shape& s) {
  if (in.state.sums.defined())
    return {in.state.sums, in.state.normalizer, in.state.offset.detach()};
  const at::TensorOptions type = in.value.options();
  const double offset = feature_map_has_offset(options) ? kNoKeysOffset : 0.0;
  return {at::zeros({s.batch, s.heads, s.rank * s.features, s.value_depth}, type),
          at::zeros({s.batch, s.heads, s.rank * s.features}, type),
          at::full({s.batch, s.heads}, offset, type)};
}

/// Adds keys (features with position factors) to the state, whose offset becomes `offset` [B,H] and
/// whose parts fade by log_decay [(B,)H,R] before, if defined.
void add_keys(const at::Tensor& keys, const at::Tensor& value, const at::Tensor& offset,
              const at::Tensor& log_decay, LinearAttentionState& state) {
  at::Tensor decay = (state.offset - offset).exp().unsqueeze(-1);
  if (log_decay.defined()) {
    const int64_t features = keys.size(-1) / log_decay.size(-1);
    decay = decay * log_decay.exp().repeat_interleave(features, -1);
  }
  state.sums = state.sums * decay.unsqueeze(-1) + at::matmul(keys.transpose(-1, -2), value);
  state.normalizer = state.normalizer * decay + keys.sum(-2);
  state.offset = offset;
}

/// The output of causal chunk [first, first + count), with the state before it, which moves on.
at::Tensor causal_chunk(const LinearAttentionInputs& in, const LinearAttentionOptions& options,
                        const at::Tensor& phi, const Keys& keys, int64_t first, int64_t count,
                        LinearAttentionState& state) {
  const at::Tensor queries = phi.narrow(2, first, count), value = in.value.narrow(2, first, count);
  const at::Tensor key_phi = keys.phi.narrow(2, first, count);
  const at::Tensor offsets = keys.offsets.narrow(2, first, count);
  const at::Tensor query_factor = slice(in.query_factor, -2, first, count);
  const at::Tensor key_factor = slice(in.key_factor, -2, first, count);
  at::Tensor since, through, until;  // how far the state fades to a token, in all, and after it
  if (in.log_decay.defined()) {
    since = slice(in.log_decay, -2, first, count).cumsum(-2);
    through = since.select(-2, count - 1);
    until = through.unsqueeze(-2) - since;
  }
  at::Tensor weights = at::matmul(queries, key_phi.transpose(-1, -2));
  if (query_factor.defined()) {
    weights = weights * pair_factor(query_factor, key_factor, since);
  }
  weights = (weights * (offsets.transpose(-1, -2) - offsets).clamp_max(0).exp()).tril();
  const at::Tensor before = state.offset.unsqueeze(-1).unsqueeze(-1);
  const auto faded = [](const at::Tensor& factor, const at::Tensor& exponent) {
    return exponent.defined() ? factor * exponent.exp() : factor;
  };
  const at::Tensor read =
      with_factor(queries, faded(query_factor, since)) * (before - offsets).exp();
  const at::Tensor numerator = at::matmul(weights, value) + at::matmul(read, state.sums);
  const at::Tensor denominator =
      weights.sum(-1, /*keepdim=*/true) + at::matmul(read, state.normalizer.unsqueeze(-1));
  const at::Tensor after = offsets.select(2, count - 1);  // [B,H,1]
  add_keys(with_factor(key_phi, faded(key_factor, until)) * (offsets - after.unsqueeze(-1)).exp(),
           value, after.squeeze(-1), through, state);
  return numerator / floored(denominator, options.denominator_floor);
}

}  // namespace

LinearAttentionResult linear_attention_reference(const LinearAttentionInputs& original,
                                                 const LinearAttentionOptions& original_options,
                                                 int64_t chunk) {
  LinearAttentionInputs given = original;
  LinearAttentionOptions options = original_options;
  check_linear_attention(given, options);
  resolve_constant_features(given, options);
  const Shape s = check_linear_attention(given, options);
  const LinearAttentionInputs in = prepared(given, s);
  LinearAttentionState state = first_state(in, options, s);
  const at::Tensor queries = query_features(in, options);
  const Keys keys = key_features(in, options, state.offset);
  std::vector<at::Tensor> outputs{
      at::zeros({s.batch, s.heads, 0, s.value_depth}, in.value.options())};
  if (!options.causal) {
    for (int64_t first = 0; first < s.keys; first += chunk) {
      const int64_t count = std::min(chunk, s.keys - first);
      add_keys(
          with_factor(keys.phi.narrow(2, first, count), slice(in.key_factor, -2, first, count)),
          in.value.narrow(2, first, count), keys.offsets.select(2, 0).squeeze(-1), {}, state);
    }
  }
  for (int64_t first = 0; first < s.queries; first += chunk) {
    const int64_t count = std::min(chunk, s.queries - first);
    if (options.causal) {
      outputs.push_back(causal_chunk(in, options, queries, keys, first, count, state));
      continue;
    }
    const at::Tensor read =
        with_factor(queries.narrow(2, first, count), slice(in.query_factor, -2, first, count));
    const at::Tensor denominator = at::matmul(read, state.normalizer.unsqueeze(-1));
    outputs.push_back(at::matmul(read, state.sums) /
                      floored(denominator, options.denominator_floor));
  }
  return {at::cat(outputs, 2).to(given.query.scalar_type()), state};
}

at::Tensor linear_attention_dense(const LinearAttentionInputs& original,
                                  const LinearAttentionOptions& options, const at::Tensor& factor) {
  const Shape s = check_linear_attention(original, options);
  TORCH_CHECK(!original.state.sums.defined(),
              "[linear_attention_dense] expected no state, got one");
  const LinearAttentionInputs in = prepared(original, s);
  const auto features = [&](const at::Tensor& x, const at::Tensor& log) {
    if (!options.feature_map.has_value()) return x;
    const at::Tensor omega =
        options.omega.defined() ? options.omega.to(x.options()) : options.omega;
    const at::Tensor phi =
        feature_map(*options.feature_map, x * linear_attention_scale(options, s.depth), omega);
    return log.defined() ? phi * log.exp() : phi;
  };
  at::Tensor weights =
      at::matmul(features(in.query, in.query_log), features(in.key, in.key_log).transpose(-1, -2));
  if (in.query_factor.defined()) {
    const at::Tensor faded = in.log_decay.defined() ? in.log_decay.cumsum(-2) : at::Tensor();
    weights = weights * pair_factor(in.query_factor, in.key_factor, faded);
  }
  if (factor.defined()) weights = weights * factor.to(weights.scalar_type());
  if (in.key_padding_mask.defined()) {
    weights = weights.masked_fill(in.key_padding_mask.logical_not().unsqueeze(1).unsqueeze(1), 0);
  }
  if (options.causal) weights = weights.tril();
  const at::Tensor denominator =
      floored(weights.sum(-1, /*keepdim=*/true), options.denominator_floor);
  return (at::matmul(weights, in.value) / denominator).to(original.query.scalar_type());
}

}  // namespace mnemosyne::ops
