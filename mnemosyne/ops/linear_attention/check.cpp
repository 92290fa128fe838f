#include "mnemosyne/ops/linear_attention/check.h"

#include <ATen/ops/ones.h>

#include <cmath>
#include <string>
#include <utility>

#include "mnemosyne/core/error.h"

namespace mnemosyne::ops {
namespace {

using Shape = LinearAttentionShape;

at::IntArrayRef sizes_of(const at::Tensor& x) {
  return x.defined() ? x.sizes() : at::IntArrayRef{};
}

Shape shape_of_inputs(const LinearAttentionInputs& in) {
  const at::Tensor &q = in.query, &k = in.key, &v = in.value;
  TORCH_CHECK(q.defined() && k.defined() && v.defined() && q.dim() == 4 && k.dim() == 4 &&
                  v.dim() == 4 && k.size(0) == q.size(0) && v.size(0) == q.size(0) &&
                  k.size(3) == q.size(3) && v.size(1) == k.size(1) && v.size(2) == k.size(2),
              "[linear_attention] expected query [B,H,L,D], key [B,Hk,S,D] and value [B,Hk,S,Dv], ",
              "got ", sizes_of(q), ", ", sizes_of(k), " and ", sizes_of(v));
  TORCH_CHECK(k.size(1) > 0 && q.size(1) > 0 && q.size(1) % k.size(1) == 0,
              "[linear_attention] expected heads of the query to be a multiple of those of the ",
              "key, got ", q.size(1), " and ", k.size(1));
  TORCH_CHECK(at::isFloatingType(q.scalar_type()) && k.scalar_type() == q.scalar_type() &&
                  v.scalar_type() == q.scalar_type(),
              "[linear_attention] expected query, key and value of one floating-point dtype, got ",
              q.scalar_type(), ", ", k.scalar_type(), " and ", v.scalar_type());
  TORCH_CHECK(q.size(3) > 0 && v.size(3) > 0,
              "[linear_attention] expected a depth of at least 1, got ", q.sizes(), " and ",
              v.sizes());
  return {.batch = q.size(0),
          .heads = q.size(1),
          .key_heads = k.size(1),
          .queries = q.size(2),
          .keys = k.size(2),
          .depth = q.size(3),
          .value_depth = v.size(3),
          .features = q.size(3),
          .rank = 1};
}

void check_sizes(const char* name, const at::Tensor& x, at::IntArrayRef expected) {
  TORCH_CHECK(!x.defined() || x.sizes() == expected, "[linear_attention] expected ", name,
              " of shape ", expected, ", got ", sizes_of(x));
}

/// [H,length,R] or [B,H,length,R].
void check_table(const char* name, const at::Tensor& x, const Shape& s, int64_t length) {
  if (x.defined() && x.dim() == 4) {
    check_sizes(name, x, {s.batch, s.heads, length, s.rank});
  } else {
    check_sizes(name, x, {s.heads, length, s.rank});
  }
}

void check_devices(const LinearAttentionInputs& in, const LinearAttentionOptions& options) {
  for (const at::Tensor* x : {&in.key, &in.value, &in.query_factor, &in.key_factor, &in.log_decay,
                              &in.query_log, &in.key_log, &in.key_padding_mask, &in.state.sums,
                              &in.state.normalizer, &in.state.offset, &options.omega}) {
    TORCH_CHECK(!x->defined() || x->device() == in.query.device(),
                "[linear_attention] expected all tensors on the device of the query, got ",
                x->device(), " and ", in.query.device());
  }
}

void check_state(const LinearAttentionState& state, const Shape& s) {
  const bool any = state.sums.defined() || state.normalizer.defined() || state.offset.defined();
  if (!any) return;
  TORCH_CHECK(state.sums.defined() && state.normalizer.defined() && state.offset.defined(),
              "[linear_attention] expected a state of sums, normalizer and offset, got a part");
  check_sizes("state.sums", state.sums, {s.batch, s.heads, s.rank * s.features, s.value_depth});
  check_sizes("state.normalizer", state.normalizer, {s.batch, s.heads, s.rank * s.features});
  check_sizes("state.offset", state.offset, {s.batch, s.heads});
}

void check_position(const LinearAttentionInputs& in, const LinearAttentionOptions& options,
                    Shape& s) {
  TORCH_CHECK(in.query_factor.defined() == in.key_factor.defined(),
              "[linear_attention] expected query_factor and key_factor together, got one of them");
  if (in.query_factor.defined()) {
    const int64_t axes = in.query_factor.dim();
    TORCH_CHECK((axes == 3 || axes == 4) && in.query_factor.size(-1) > 0,
                "[linear_attention] expected query_factor of shape [H,L,R] or [B,H,L,R], got ",
                in.query_factor.sizes());
    s.rank = in.query_factor.size(-1);
    check_table("query_factor", in.query_factor, s, s.queries);
    check_table("key_factor", in.key_factor, s, s.keys);
  }
  if (in.log_decay.defined()) {
    if (!options.causal || !in.query_factor.defined()) {
      throw InputError(
          "[linear_attention] expected log_decay only for causal attention with query_factor and "
          "key_factor, got " +
          std::string(options.causal ? "no factors" : "both directions"));
    }
    check_table("log_decay", in.log_decay, s, s.keys);
  }
  if (in.query_log.defined() || in.key_log.defined()) {
    if (!options.feature_map.has_value() || !traits_of(*options.feature_map).exponential) {
      throw InputError(
          "[linear_attention] expected query_log and key_log only with the feature "
          "maps favor+ and hyp+, got another one");
    }
    check_sizes("query_log", in.query_log, {s.heads, s.queries, s.features});
    check_sizes("key_log", in.key_log, {s.heads, s.keys, s.features});
  }
}

}  // namespace

bool feature_map_projects(const LinearAttentionOptions& options) {
  return options.feature_map.has_value() && traits_of(*options.feature_map).per_vector > 0;
}

bool feature_map_has_offset(const LinearAttentionOptions& options) {
  return options.feature_map.has_value() && traits_of(*options.feature_map).estimates;
}

double linear_attention_scale(const LinearAttentionOptions& options, int64_t depth) {
  if (options.scale.has_value()) return std::sqrt(*options.scale);
  return feature_map_has_offset(options) ? std::pow(static_cast<double>(depth), -0.25) : 1.0;
}

bool linear_attention_is_fused(const LinearAttentionInputs& inputs) {
  const at::ScalarType type = inputs.query.scalar_type();
  return (inputs.query.is_cpu() || inputs.query.is_meta()) &&
         (type == at::kFloat || type == at::kBFloat16);
}

LinearAttentionShape check_linear_attention(const LinearAttentionInputs& inputs,
                                            const LinearAttentionOptions& options) {
  Shape s = shape_of_inputs(inputs);
  check_devices(inputs, options);
  if (feature_map_projects(options)) {
    const at::Tensor& omega = options.omega;
    TORCH_CHECK(
        omega.defined() && omega.dim() == 2 && omega.size(0) > 0 && omega.size(1) == s.depth,
        "[linear_attention] expected omega of shape [W,", s.depth, "], got ", sizes_of(omega));
    s.features = num_features(*options.feature_map, omega.size(0));
  }
  if (!(options.denominator_floor >= 1e-30 && options.denominator_floor < 1)) {
    throw InputError("[linear_attention] expected a denominator_floor from 1e-30 to 1, got " +
                     std::to_string(options.denominator_floor));
  }
  if (options.scale.has_value() && !(std::isfinite(*options.scale) && *options.scale >= 0.0)) {
    throw InputError("[linear_attention] expected a finite scale of 0 or more, got " +
                     std::to_string(*options.scale));
  }
  TORCH_CHECK(!options.causal || s.queries == s.keys,
              "[linear_attention] expected as many queries as keys when causal, got ", s.queries,
              " and ", s.keys);
  check_position(inputs, options, s);
  const at::Tensor& mask = inputs.key_padding_mask;
  check_sizes("key_padding_mask", mask, {s.batch, s.keys});
  TORCH_CHECK(!mask.defined() || mask.scalar_type() == at::kBool,
              "[linear_attention] expected a key_padding_mask of dtype bool, got ",
              mask.scalar_type());
  check_state(inputs.state, s);
  return s;
}

void resolve_constant_features(LinearAttentionInputs& inputs, LinearAttentionOptions& options) {
  if (options.feature_map != FeatureMapKind::kConstant) return;
  for (at::Tensor* x : {&inputs.query, &inputs.key}) {
    *x = at::ones_symint({x->sym_size(0), x->sym_size(1), x->sym_size(2), 1}, x->options());
  }
  options.feature_map.reset();
  options.scale.reset();
}

}  // namespace mnemosyne::ops
