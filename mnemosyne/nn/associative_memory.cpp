#include "mnemosyne/nn/associative_memory.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

namespace mnemosyne::nn {

AssociativeMemory::AssociativeMemory(FeatureMap feature_map, double eps)
    : feature_map_(std::move(feature_map)), eps_(eps) {}

AssociativeState AssociativeMemory::init(int64_t batch, int64_t heads, int64_t value_dim,
                                         const at::TensorOptions& options) const {
  const int64_t features = feature_map_.num_features();
  return {at::zeros({batch, heads, features, value_dim}, options),
          at::zeros({batch, heads, features}, options), at::zeros({batch, heads}, options)};
}

AssociativeState AssociativeMemory::write(const AssociativeState& state, const at::Tensor& keys,
                                          const at::Tensor& values, const at::Tensor& gamma) const {
  TORCH_CHECK(
      keys.dim() == 3 && values.dim() == 3 && keys.size(1) == gamma.numel(),
      "[associative_memory] expected keys and values of shape [B, H, .] and gamma [H], got ",
      keys.sizes(), ", ", values.sizes(), " and ", gamma.sizes());
  return write_features(state, feature_map_.scaled(keys), values, gamma);
}

AssociativeState AssociativeMemory::write_features(const AssociativeState& state,
                                                   const ops::ScaledFeatures& phi,
                                                   const at::Tensor& values,
                                                   const at::Tensor& gamma) const {
  const at::Tensor decay = gamma.view({1, -1, 1});
  const at::Tensor before = state.log_scale.unsqueeze(-1);
  // Where nothing is held the old scale means nothing.
  const at::Tensor empty = state.normaliser.detach().abs().amax(-1, /*keepdim=*/true) == 0;
  const at::Tensor forgotten = before + decay.detach().log();
  const at::Tensor after =
      at::where(empty.logical_or(decay == 0), phi.log_scale, at::maximum(forgotten, phi.log_scale));
  const at::Tensor keep = at::where(empty, 0.0, decay * (before - after).exp());
  const at::Tensor features = phi.features * (phi.log_scale - after).exp();
  return {keep.unsqueeze(-1) * state.sums + features.unsqueeze(-1) * values.unsqueeze(-2),
          keep * state.normaliser + features, after.squeeze(-1)};
}

at::Tensor AssociativeMemory::read(const AssociativeState& state, const at::Tensor& queries) const {
  return read_features(state, feature_map_.scaled(queries).features);
}

at::Tensor AssociativeMemory::read_features(const AssociativeState& state,
                                            const at::Tensor& queries) const {
  const at::Tensor features = queries.unsqueeze(-2);  // [B, H, 1, R]
  const at::Tensor total = at::matmul(features, state.normaliser.unsqueeze(-1)).squeeze(-1);
  return at::matmul(features, state.sums).squeeze(-2) / (total + eps_);
}

}  // namespace mnemosyne::nn
