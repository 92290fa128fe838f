#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "mnemosyne/ops/feature_map.h"

namespace mnemosyne::ops {

// B = batch, H = heads of queries, Hk = heads of keys (H is a multiple), L = queries, S = keys, D
// and Dv = depth of keys and values, W = random vectors, M = features, R = rank of the position
// factor.

/// What linear attention remembers of the keys that it has seen: a constant size, whatever their
/// number. The sums count e^offset times, so that features of any magnitude can be added, and have
/// faded up to and including the last key's own decay.
/// Gradients treat the offset as a constant, which is exact: it cancels in every output.
struct LinearAttentionState {
  at::Tensor sums{};        ///< [B,H,R*M,Dv]: sum over keys of s_r phi_m v; index r M + m.
  at::Tensor normalizer{};  ///< [B,H,R*M]: sum over keys of s_r phi_m.
  at::Tensor offset{};      ///< [B,H]
};

/// What attends to what. All but the first three may be undefined. Each of query_factor, key_factor
/// and log_decay may have the batch as first axis, where it differs between the examples.
struct LinearAttentionInputs {
  at::Tensor query{};             ///< [B,H,L,D]: float32, bfloat16 or float64, as the next two.
  at::Tensor key{};               ///< [B,Hk,S,D]
  at::Tensor value{};             ///< [B,Hk,S,Dv]
  at::Tensor query_factor{};      ///< p [H,L,R]; with key_factor or not at all.
  at::Tensor key_factor{};        ///< s [H,S,R]
  at::Tensor log_decay{};         ///< g [H,L,R], not positive; causal, with factors.
  at::Tensor query_log{};         ///< [H,L,M], added to the exponents of "favor+" and "hyp+".
  at::Tensor key_log{};           ///< [H,S,M]
  at::Tensor key_padding_mask{};  ///< bool [B,S]: true where the key takes part.
  LinearAttentionState state{};   ///< Of earlier keys: all three, or none for no such keys.
};

struct LinearAttentionOptions {
  /// Of queries and keys; none: they *are* features (D = M), positive or signed.
  std::optional<FeatureMapKind> feature_map{};
  at::Tensor omega{};   ///< [W,D] for the maps that project; not differentiated.
  bool causal = false;  ///< Query i sees keys 0..i; needs L = S.
  /// Of the product q.k, as in at::scaled_dot_product_attention, so queries and keys take its root
  /// each; default 1 / sqrt(D) for maps that estimate the softmax kernel, else 1.
  std::optional<double> scale{};
  double denominator_floor = 1e-20;  ///< Least magnitude of a denominator, which keeps its sign.
  /// Without: sums and normalizer of the result are empty, [B,H,0,Dv] and [B,H,0]. Kept for the
  /// backward pass, a state of R M Dv numbers can take more memory than the output; and attention
  /// that needs no state is faster where its rank is high and its length is not.
  bool with_state = true;
};

struct LinearAttentionResult {
  at::Tensor output;           ///< [B,H,L,Dv] in the dtype of the query.
  LinearAttentionState state;  ///< After the last key: float32, or float64 for float64 inputs.
};

/// Attention in time and memory linear in the length:
///
///     o_i = sum_j w_ij v_j / sum_j w_ij,   w_ij = phi(q_i).phi(k_j) * (p_i.s_j)
///
/// over the keys that take part, j <= i when causal. phi is a feature map of `feature_map.h`
/// without its constant factor; (p_i.s_j) is the multiplicative position factor and the additive
/// log terms are the concatenated one, whose positive features factorise elementwise (Choromanski
/// et al., arXiv 2302.01925). With `log_decay` the parts of the factor fade from token to token:
///
///     w_ij = phi(q_i).phi(k_j) * sum_r p_ir s_jr exp(sum_{j < t <= i} g_tr)
///
/// so the state is multiplied by e^g before a token, the first one included; no product of decays
/// is inverted, so any g is stable at any length. The kernel keeps nothing of size L x S, forward
/// or backward, nor of size L x M, with one exception: where neither a state is given nor one is
/// asked for and R M Dv is so large that a few thousand tokens cost less pair by pair, it weighs
/// pairs of blocks of 128 tokens, with the features of one head at a time in scratch memory.
///
/// Exponential features are stable: a query's are relative to its own largest, a key's to the
/// largest of all keys (both directions) or of the keys up to it (causal), so that what a later
/// token holds does not change an earlier finite output by one bit. The floor applies to weights
/// scaled that way.
///
/// From the papers: the maps, and that a position mask of low rank keeps attention linear. Ours:
/// the mask as a factor of rank R beside the features, its decay per part (a gate per feature is
/// that of gated linear attention, Yang et al., arXiv 2312.06635), the running maximum with a state
/// relative to it, and the two sweeps of the backward pass, which recompute features, not keep
/// them.
///
/// With `state` a long sequence goes through in segments, and decoding is one token at a time:
///
///     ops::LinearAttentionState state;
///     for (const at::Tensor& x : tokens) {                        // [B,H,1,D] each
///       auto [output, next] = ops::linear_attention(
///           {.query = q(x), .key = k(x), .value = v(x), .state = state},
///           {.feature_map = ops::FeatureMapKind::kFavorPlus, .omega = omega, .causal = true});
///       state = next;
///     }
///
/// CPU tensors in float32 and bfloat16 go through a kernel (sums in float32); everything else
/// through `linear_attention_reference`. Derivatives of all tensors but omega, mask and offset, of
/// any order: gradients that are to be differentiated again (`create_graph`) come from the
/// reference. This is torch.ops.mnemosyne.linear_attention. Errors: shapes (c10::Error), options
/// (InputError).
LinearAttentionResult linear_attention(const LinearAttentionInputs& inputs,
                                       const LinearAttentionOptions& options);

/// The same in plain ATen, chunk by chunk: differentiable any number of times, on any device.
LinearAttentionResult linear_attention_reference(const LinearAttentionInputs& inputs,
                                                 const LinearAttentionOptions& options,
                                                 int64_t chunk = 64);

/// The definition, by the matrix of all weights [B,H,L,S], without state or stabilisation: for
/// tests in float64 and for small lengths. `factor` multiplies the weights, too, where it is
/// defined: anything that broadcasts to [B,H,L,S].
at::Tensor linear_attention_dense(const LinearAttentionInputs& inputs,
                                  const LinearAttentionOptions& options,
                                  const at::Tensor& factor = {});

}  // namespace mnemosyne::ops
