#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "mnemosyne/nn/feature_map.h"

namespace mnemosyne::nn {

/// What a compact associative memory holds: constant in size, whatever the number of tokens
/// written. B = batch (meta-tokens), H = heads, R = features, V = size of a value.
///
/// N_t and Psi_t are what is held times e^{log_scale}, a running maximum of the exponents of the
/// keys that forgets as the memory does: what is held neither overflows, however large keys are,
/// nor vanishes when a large one is long ago. A memory of zeros is an empty one.
struct AssociativeState {
  at::Tensor sums;        ///< [B, H, R, V], N_t: discounted sum of phi(k_i) v_i^T.
  at::Tensor normaliser;  ///< [B, H, R], Psi_t: discounted sum of phi(k_i).
  at::Tensor log_scale;   ///< [B, H].
};

/// The compact associative memory (CAM) of Mnemosyne, arXiv 2302.01128, batched and in plain ATen:
///
///     N_t   = gamma N_{t-1}   + phi(k_t) v_t^T
///     Psi_t = gamma Psi_{t-1} + phi(k_t)
///     o_t   = phi(q_t)^T N_t / (phi(q_t)^T Psi_t + eps)
///
/// which is causal linear attention in which token i counts gamma^(t-i). With the constant map, o_t
/// is the bias-corrected exponential mean of the values. Heads with a gamma each remember over
/// several times. Differentiable everywhere; nothing is written in place.
///
///     nn::AssociativeMemory memory(nn::FeatureMap({.name = "hyp+", .dim = 8, .num_features =
///     32})); auto state = memory.init(batch, heads, value_dim, options); state =
///     memory.write(state, keys, values, gamma); at::Tensor out = memory.read(state, queries);
class AssociativeMemory {
 public:
  /// `eps` keeps the division finite; it is added to the normaliser.
  explicit AssociativeMemory(FeatureMap feature_map, double eps = 1e-12);

  /// An empty memory.
  AssociativeState init(int64_t batch, int64_t heads, int64_t value_dim,
                        const at::TensorOptions& options) const;

  /// Forgets by gamma [H] (each in [0, 1]) and stores values [B, H, V] under keys [B, H, D].
  AssociativeState write(const AssociativeState& state, const at::Tensor& keys,
                         const at::Tensor& values, const at::Tensor& gamma) const;

  /// What queries [B, H, D] find: [B, H, V].
  at::Tensor read(const AssociativeState& state, const at::Tensor& queries) const;

  /// The same from features [B, H, R] of keys, with their scale [B, H, 1], and of queries, whose
  /// scale does not count: see `FeatureMap::scaled`.
  AssociativeState write_features(const AssociativeState& state, const ops::ScaledFeatures& keys,
                                  const at::Tensor& values, const at::Tensor& gamma) const;
  at::Tensor read_features(const AssociativeState& state, const at::Tensor& queries) const;

  const FeatureMap& feature_map() const { return feature_map_; }

 private:
  FeatureMap feature_map_;
  double eps_;
};

}  // namespace mnemosyne::nn
