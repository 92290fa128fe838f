#include "mnemosyne/ops/masked_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/fft_irfftn.h>
#include <ATen/ops/fft_rfftn.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/roll.h>
#include <ATen/ops/softmax.h>

#include <cmath>
#include <limits>
#include <vector>

namespace mnemosyne::ops {

at::Tensor softmax_attention_with_bias(const at::Tensor& query, const at::Tensor& key,
                                       const at::Tensor& value, const at::Tensor& bias,
                                       bool causal) {
  TORCH_CHECK(
      query.dim() == 4 && key.dim() == 4 && query.size(-1) == key.size(-1),
      "[softmax_attention_with_bias] expected query [B, H, L, D] and key [B, H, S, D], got ",
      query.sizes(), " and ", key.sizes());
  const double scale = 1.0 / std::sqrt(static_cast<double>(query.size(-1)));
  at::Tensor scores = at::matmul(query, key.mT()) * scale;
  if (bias.defined()) scores = scores + bias;
  if (causal) {
    TORCH_CHECK(query.size(2) == key.size(2),
                "[softmax_attention_with_bias] expected as many keys as queries when causal, got ",
                key.size(2), " and ", query.size(2));
    const at::Tensor later = at::ones({query.size(2), key.size(2)},
                                      query.options().dtype(at::kBool).requires_grad(false))
                                 .triu(1);
    scores = scores.masked_fill(later, -std::numeric_limits<double>::infinity());
  }
  return at::matmul(at::softmax(scores, -1), value);
}

at::Tensor masked_linear_attention_reference(const at::Tensor& query, const at::Tensor& key,
                                             const at::Tensor& value, const at::Tensor& factor) {
  const at::Tensor weights = at::matmul(query, key.mT()) * factor;
  return at::matmul(weights, value) / weights.sum(-1, /*keepdim=*/true);
}

at::Tensor fft_masked_attention(const at::Tensor& query, const at::Tensor& key,
                                const at::Tensor& value, const at::Tensor& factor) {
  const int64_t axes = factor.dim() - 1;
  std::vector<int64_t> grid, period, shift, dims;
  int64_t tokens = 1;
  for (int64_t axis = 1; axis <= axes; ++axis) {
    grid.push_back((factor.size(axis) + 1) / 2);
    period.push_back(factor.size(axis));
    shift.push_back(1 - grid.back());
    tokens *= grid.back();
  }
  TORCH_CHECK((axes == 1 || axes == 2) && query.dim() == 4 && query.sizes() == key.sizes() &&
                  query.size(2) == tokens && value.size(2) == tokens,
              "[fft_masked_attention] expected factor [H, 2 G1 - 1] or [H, 2 G1 - 1, 2 G2 - 1] and "
              "query, key, value [B, H, G1 G2, .], got ",
              factor.sizes(), " and ", query.sizes(), ", ", key.sizes(), ", ", value.sizes());
  for (int64_t axis = -axes; axis < 0; ++axis) dims.push_back(axis);
  // Offset zero comes first for the transform; negative offsets wrap around to the end.
  const at::Tensor kernel =
      at::fft_rfftn(at::roll(factor, shift, dims), {}, dims).unsqueeze(1);  // [H, 1, ...]
  // A column of ones carries the normaliser along: [B, H, L, E + 1].
  const at::Tensor columns = at::cat({value, at::ones_like(value.narrow(-1, 0, 1))}, -1);
  std::vector<int64_t> shape = {columns.size(0), columns.size(1), columns.size(3)};
  shape.insert(shape.end(), grid.begin(), grid.end());
  // One feature at a time, which keeps memory at O(L E).
  at::Tensor total;
  for (int64_t feature = 0; feature < query.size(-1); ++feature) {
    const at::Tensor signal = (key.narrow(-1, feature, 1) * columns).mT().reshape(shape);
    at::Tensor mixed = at::fft_irfftn(at::fft_rfftn(signal, period, dims) * kernel, period, dims);
    for (int64_t axis = 0; axis < axes; ++axis) {
      mixed = mixed.narrow(dims[static_cast<size_t>(axis)], 0, grid[static_cast<size_t>(axis)]);
    }
    const at::Tensor part = query.narrow(-1, feature, 1) * mixed.flatten(3).mT();
    total = total.defined() ? total + part : part;
  }
  const int64_t width = value.size(-1);
  return total.narrow(-1, 0, width) / total.narrow(-1, width, 1);
}

}  // namespace mnemosyne::ops
