#pragma once

#include <cstdint>

#include "mnemosyne/kernels/dispatch.h"

namespace mnemosyne::kernels {

// B = batch, H = heads of queries, Hk = heads of keys, L = queries, S = keys, D and Dv = depth of
// keys and values, W = random vectors, M = features, R = rank of the position factor. Dp, Wp are
// padded to kAttentionPadding.

inline constexpr int64_t kAttentionPadding = 16;

constexpr int64_t attention_padded(int64_t size) {
  return (size + kAttentionPadding - 1) / kAttentionPadding * kAttentionPadding;
}

/// What turns a row x [D] into features: x itself; elu(x) + 1; relu(w x) c + 1e-3; e^{w x}; the
/// pair e^{w x}, e^{-w x}; the pair cos w x, sin w x. M is D, D, W, W, 2W and 2W.
enum class AttentionFeatures { kIdentity, kElu, kRelu, kExp, kExpPair, kTrig };

constexpr bool attention_features_are_pairs(AttentionFeatures features) {
  return features == AttentionFeatures::kExpPair || features == AttentionFeatures::kTrig;
}

/// Whether keys carry a factor e^{c |x|^2} and are stored relative to a running maximum.
constexpr bool attention_features_have_offset(AttentionFeatures features) {
  return features == AttentionFeatures::kExp || attention_features_are_pairs(features);
}

/// The offset of a state that has seen no key.
inline constexpr float kAttentionNoOffset = -1e30f;

/// Tokens that are handled at a time: long enough to amortise the state, whose cost per token does
/// not depend on it, short enough for the quadratic part within it and for the second cache.
constexpr int64_t attention_chunk(int64_t rank) { return rank > 2 ? 128 : 64; }

/// Rows of [B, heads, length, depth] with contiguous elements and any other strides, in floats.
struct AttentionRows {
  const float* data;
  int64_t batch;
  int64_t head;
  int64_t row;
};

/// Tables [H,length,R], one after the other for the examples of a batch; distance 0: one for all of
/// them. Null data: none.
template <typename Float>
struct AttentionTables {
  Float* data;
  int64_t batch;  ///< Floats from one example to the next.
};

struct LinearAttentionSizes {
  int64_t batch;
  int64_t heads;
  int64_t key_heads;
  int64_t queries;
  int64_t keys;
  int64_t depth;
  int64_t value_depth;
  int64_t omegas;  ///< W; D for features without projection.
  int64_t rank;    ///< R; 1 without position factors.
};

/// Linear attention: the normalised read-out, and the state after it. An item of it is a head of an
/// example, b H + h.
struct LinearAttentionParams {
  LinearAttentionSizes sizes;
  AttentionRows query;  ///< [B,H,L,D]
  AttentionRows key;    ///< [B,Hk,S,D]
  AttentionRows value;  ///< [B,Hk,S,Dv]
  const float* omega;   ///< [Wp,Dp], zero in the padding, scaled; null without projection.
  const float* omega_transposed;              ///< [Dp,Wp]
  AttentionTables<const float> query_factor;  ///< [H,L,R] or null, as are the next six.
  AttentionTables<const float> key_factor;    ///< [H,S,R]
  AttentionTables<const float> decay;  ///< [H,S,R]: the state fades by it before a token; causal.
  const float* query_log;              ///< [H,L,M], added to the exponents
  const float* key_log;                ///< [H,S,M]
  const bool* key_mask;                ///< [B,S]: true takes part.
  const float* sums;                   ///< [B,H,R,M,Dv] before the first key, with the next two.
  const float* normalizer;             ///< [B,H,R,M]
  const float* offset;                 ///< [B,H]: the state counts e^offset times.
  float* output;                       ///< [B,H,L,Dv]
  float* inverse;                      ///< [B,H,L]: one over the floored denominator.
  float* next_sums;                    ///< [B,H,R,M,Dv] or null, and so on.
  float* next_normalizer;
  float* next_offset;
  AttentionFeatures features;
  bool causal;
  bool by_blocks;  ///< Pairs of blocks instead of a state; no sums, next_sums or gradients of them.
  float norm_scale;  ///< c of the factor e^{c |x|^2} of keys.
  float relu_scale;
  float floor;  ///< The least magnitude of a denominator.
};

/// Its gradient. Of the items that add to the same place, in grad_key and grad_value those whose
/// heads share keys, elsewhere those whose examples share a table, one goes after the other.
struct LinearAttentionBackwardParams {
  LinearAttentionParams forward;  ///< With what the forward pass wrote.
  AttentionRows grad_output;      ///< [B,H,L,Dv]
  const float* grad_next_sums;    ///< [B,H,R,M,Dv] or null
  const float* grad_next_normalizer;
  float* grad_query;                         ///< [B,H,L,D], written
  float* grad_key;                           ///< [B,Hk,S,D], added to, as are the next five
  float* grad_value;                         ///< [B,Hk,S,Dv]
  AttentionTables<float> grad_query_factor;  ///< [H,L,R] or null, and so on
  AttentionTables<float> grad_key_factor;
  float* grad_query_log;
  float* grad_key_log;
  float* grad_sums;  ///< [B,H,R,M,Dv] or null, written
  float* grad_normalizer;
};

/// M in the layout of the kernels: each half of a pair is padded on its own.
constexpr int64_t attention_padded_features(const LinearAttentionSizes& sizes,
                                            AttentionFeatures features) {
  return attention_padded(sizes.omegas) * (attention_features_are_pairs(features) ? 2 : 1);
}

/// Whether weighing all pairs of tokens takes fewer operations than a state of R M Dv numbers, to
/// which every token is added and which it reads, whatever their number: at high rank and up to
/// some thousand tokens. What is kept of all keys instead is then at most a few states large.
constexpr bool attention_prefers_blocks(const LinearAttentionSizes& sizes,
                                        AttentionFeatures features, bool causal, bool backward) {
  const int64_t tokens = sizes.queries > sizes.keys ? sizes.queries : sizes.keys;
  const int64_t width = attention_padded_features(sizes, features);
  const int64_t values = attention_padded(sizes.value_depth);
  const int64_t pair =
      backward ? 3 * (width + values) + 4 * sizes.rank : width + values + sizes.rank;
  const int64_t state = sizes.rank * width * values;
  return tokens * pair < (backward ? 5 : 2) * (causal ? 2 : 1) * state;
}

using LinearAttentionSlice = Slice<LinearAttentionParams>;
using LinearAttentionBackwardSlice = Slice<LinearAttentionBackwardParams>;

}  // namespace mnemosyne::kernels

MN_DECLARE_KERNEL(linear_attention_forward, LinearAttentionSlice)
MN_DECLARE_KERNEL(linear_attention_backward, LinearAttentionBackwardSlice)
MN_DECLARE_SCRATCH(linear_attention_forward_scratch, LinearAttentionParams)
MN_DECLARE_SCRATCH(linear_attention_backward_scratch, LinearAttentionParams)
