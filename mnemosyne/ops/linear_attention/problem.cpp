#include "mnemosyne/ops/linear_attention/problem.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/constant_pad_nd.h>

#include <cmath>

namespace mnemosyne::ops {
namespace {

using kernels::AttentionFeatures;
using kernels::AttentionRows;

AttentionFeatures kernel_features(const LinearAttentionOptions& options) {
  if (!options.feature_map.has_value()) return AttentionFeatures::kIdentity;
  switch (*options.feature_map) {
    case FeatureMapKind::kElu:
      return AttentionFeatures::kElu;
    case FeatureMapKind::kRelu:
      return AttentionFeatures::kRelu;
    case FeatureMapKind::kFavorPlus:
      return AttentionFeatures::kExp;
    case FeatureMapKind::kHypPlus:
      return AttentionFeatures::kExpPair;
    case FeatureMapKind::kTrig:
      return AttentionFeatures::kTrig;
    case FeatureMapKind::kConstant:  // resolved before
      break;
  }
  return AttentionFeatures::kIdentity;
}

}  // namespace

at::Tensor dense_float(const at::Tensor& x) {
  return x.defined() ? x.detach().to(at::kFloat).contiguous() : x;
}

at::Tensor float_rows(const at::Tensor& x) {
  const at::Tensor result = x.detach().to(at::kFloat);
  return result.stride(-1) == 1 || result.size(-1) == 1 ? result : result.contiguous();
}

AttentionRows rows_of(const at::Tensor& x) {
  return {x.const_data_ptr<float>(), x.stride(0), x.stride(1), x.stride(2)};
}

const float* pointer(const at::Tensor& x) {
  return x.defined() ? x.const_data_ptr<float>() : nullptr;
}

float* target(const at::Tensor& x) {
  return x.defined() && x.numel() > 0 ? x.mutable_data_ptr<float>() : nullptr;
}

kernels::AttentionTables<const float> tables_of(const at::Tensor& x) {
  return {pointer(x), x.defined() && x.dim() == 4 ? x.stride(0) : 0};
}

kernels::AttentionTables<float> target_tables(const at::Tensor& x) {
  return {target(x), x.defined() && x.dim() == 4 ? x.stride(0) : 0};
}

LinearAttentionProblem::LinearAttentionProblem(const LinearAttentionInputs& given,
                                               const LinearAttentionOptions& options)
    : shape(check_linear_attention(given, options)) {
  inputs.query = float_rows(given.query);
  inputs.key = float_rows(given.key);
  inputs.value = float_rows(given.value);
  inputs.query_factor = dense_float(given.query_factor);
  inputs.key_factor = dense_float(given.key_factor);
  if (given.log_decay.defined()) decay = dense_float(given.log_decay).exp();
  inputs.query_log = dense_float(given.query_log);
  inputs.key_log = dense_float(given.key_log);
  inputs.state = {.sums = dense_float(given.state.sums),
                  .normalizer = dense_float(given.state.normalizer),
                  .offset = dense_float(given.state.offset)};
  if (given.key_padding_mask.defined()) {
    inputs.key_padding_mask = given.key_padding_mask.contiguous();
  }
  if (feature_map_projects(options)) pack_omega(options);
  fill_params(options);
}

bool LinearAttentionProblem::has_own_positions() const {
  return (inputs.query_factor.defined() && inputs.query_factor.dim() == 4) ||
         (inputs.key_factor.defined() && inputs.key_factor.dim() == 4) ||
         (decay.defined() && decay.dim() == 4);
}

void LinearAttentionProblem::pack_omega(const LinearAttentionOptions& options) {
  const at::Tensor& w = options.omega;
  const double scale = linear_attention_scale(options, shape.depth);
  omega = at::constant_pad_nd(w.detach().to(at::kFloat) * scale,
                              {0, kernels::attention_padded(w.size(1)) - w.size(1), 0,
                               kernels::attention_padded(w.size(0)) - w.size(0)});
  omega_transposed = omega.t().contiguous();
}

void LinearAttentionProblem::fill_params(const LinearAttentionOptions& options) {
  const AttentionFeatures features = kernel_features(options);
  // Without a projection a scale has to be applied here.
  const double scale = linear_attention_scale(options, shape.depth);
  if (features == AttentionFeatures::kElu && scale != 1) {
    inputs.query = inputs.query * scale;
    inputs.key = inputs.key * scale;
  }
  params.sizes = {.batch = shape.batch,
                  .heads = shape.heads,
                  .key_heads = shape.key_heads,
                  .queries = shape.queries,
                  .keys = shape.keys,
                  .depth = shape.depth,
                  .value_depth = shape.value_depth,
                  .omegas = omega.defined() ? options.omega.size(0) : shape.depth,
                  .rank = shape.rank};
  params.query = rows_of(inputs.query);
  params.key = rows_of(inputs.key);
  params.value = rows_of(inputs.value);
  params.omega = pointer(omega);
  params.omega_transposed = pointer(omega_transposed);
  params.query_factor = tables_of(inputs.query_factor);
  params.key_factor = tables_of(inputs.key_factor);
  params.decay = tables_of(decay);
  params.query_log = pointer(inputs.query_log);
  params.key_log = pointer(inputs.key_log);
  if (inputs.key_padding_mask.defined()) {
    params.key_mask = inputs.key_padding_mask.const_data_ptr<bool>();
  }
  params.sums = pointer(inputs.state.sums);
  params.normalizer = pointer(inputs.state.normalizer);
  params.offset = pointer(inputs.state.offset);
  params.features = features;
  params.causal = options.causal;
  const double norm = features == AttentionFeatures::kTrig ? 0.5 : -0.5;
  params.norm_scale =
      feature_map_has_offset(options) ? static_cast<float>(norm * scale * scale) : 0.0f;
  params.relu_scale = 1 / std::sqrt(static_cast<float>(params.sizes.omegas));
  params.floor = static_cast<float>(options.denominator_floor);
}

}  // namespace mnemosyne::ops
