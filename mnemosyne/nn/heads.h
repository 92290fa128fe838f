#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mnemosyne::nn {

// What attention modules share: B = batch, H = heads, L = tokens, E = width, d = E / H.

/// InputError unless the heads divide the width and the heads of keys (0: all) those of queries.
void check_heads(int64_t embed_dim, int64_t num_heads, int64_t num_kv_heads);

/// Queries [B,L,H d], keys and values [B,S,Hk d], with heads side by side.
struct Projected {
  at::Tensor query, key, value;
};

/// How many heads of which size there are.
struct Heads {
  int64_t queries, keys, depth;

  Heads(int64_t embed_dim, int64_t num_heads, int64_t num_kv_heads)
      : queries(num_heads),
        keys(num_kv_heads > 0 ? num_kv_heads : num_heads),
        depth(embed_dim / num_heads) {}

  /// Refuses x or source that are not [B,L,E], and a source of another length when causal.
  void check(const at::Tensor& x, const at::Tensor& source, bool causal) const;

  /// The heads apart, [B,H,L,d] and [B,Hk,S,d], in the dtype of autocast; refuses projections that
  /// do not fit.
  Projected split(const Projected& projected) const;
};

/// [B,L,heads * d] to [B,heads,L,d].
at::Tensor split_heads(const at::Tensor& x, int64_t heads);

/// Each head `times` times in a row: for queries that share keys.
at::Tensor repeat_heads(const at::Tensor& x, int64_t times);

/// `positions` in float64, or first, first + 1, ... [L,1] for the tokens of x [B,L,E].
at::Tensor positions_or_line(const at::Tensor& positions, const at::Tensor& x, int64_t first);

/// Zero where a token has no position; `has_position` may be undefined.
at::Tensor zero_unplaced(const at::Tensor& positions, const at::Tensor& has_position);

}  // namespace mnemosyne::nn
