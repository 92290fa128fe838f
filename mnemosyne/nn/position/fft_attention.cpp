#include "mnemosyne/nn/position/fft_attention.h"

#include <ATen/TensorOperators.h>

#include <cmath>

#include "mnemosyne/nn/heads.h"
#include "mnemosyne/nn/position/grid_offsets.h"
#include "mnemosyne/ops/masked_attention.h"

namespace mnemosyne::nn {

at::Tensor fft_attention(const FftAttentionInputs& in, const FourierPosition& position) {
  const int64_t length = in.query.size(2), group = in.query.size(1) / in.key.size(1);
  const bool estimates = ops::traits_of(in.feature_map).estimates;
  const double scale = estimates ? std::pow(static_cast<double>(in.query.size(3)), -0.25) : 1.0;
  const auto features = [&](const at::Tensor& x) {
    return ops::feature_map(in.feature_map, x * scale,
                            in.omega.defined() ? in.omega.to(x.options()) : in.omega);
  };
  at::Tensor keys = features(repeat_heads(in.key, group));
  if (in.key_padding_mask.defined()) {
    keys = keys.masked_fill(in.key_padding_mask.logical_not().unsqueeze(1).unsqueeze(-1), 0);
  }
  const at::Tensor offsets = grid_offsets(length, in.columns).to(in.query.device());
  at::Tensor factor = position->factor(offsets);
  if (in.causal) factor = factor * (offsets.squeeze(-1) >= 0);
  factor = factor.to(in.query.scalar_type());
  const at::Tensor queries = features(in.query), values = repeat_heads(in.value, group);
  if (length > kLargestMatrix) return ops::fft_masked_attention(queries, keys, values, factor);
  const at::Tensor index = grid_offset_index(length, in.columns).to(factor.device());
  const at::Tensor matrix = factor.flatten(1).index_select(1, index).view({-1, length, length});
  return ops::masked_linear_attention_reference(queries, keys, values, matrix);
}

}  // namespace mnemosyne::nn
