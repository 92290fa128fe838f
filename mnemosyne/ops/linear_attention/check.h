#pragma once

#include "mnemosyne/ops/linear_attention/linear_attention.h"

namespace mnemosyne::ops {

/// Sizes of a call, after `check_linear_attention`.
struct LinearAttentionShape {
  int64_t batch, heads, key_heads, queries, keys, depth, value_depth, features, rank;
};

/// Refuses what cannot be computed, with a line that names it.
LinearAttentionShape check_linear_attention(const LinearAttentionInputs& inputs,
                                            const LinearAttentionOptions& options);

/// kConstant becomes features of ones, so that the other functions need not know it.
void resolve_constant_features(LinearAttentionInputs& inputs, LinearAttentionOptions& options);

/// Whether the map projects on omega, and whether keys are kept relative to a maximum.
bool feature_map_projects(const LinearAttentionOptions& options);
bool feature_map_has_offset(const LinearAttentionOptions& options);

/// What queries and keys are multiplied by, each: the root of the scale of their product.
double linear_attention_scale(const LinearAttentionOptions& options, int64_t depth);

/// Whether the kernel takes these tensors; looks at dtype and device only.
bool linear_attention_is_fused(const LinearAttentionInputs& inputs);

/// The offset of a state that has seen no key, finite so that differences stay defined.
inline constexpr double kNoKeysOffset = -1e30;

}  // namespace mnemosyne::ops
