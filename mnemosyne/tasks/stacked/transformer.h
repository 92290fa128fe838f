#pragma once

#include <string>

#include "mnemosyne/tasks/stacked/layers.h"

namespace mnemosyne::tasks {

struct TransformerOptions {
  int64_t width = 64;
  int64_t heads = 4;  ///< Divides `width`.
  int64_t layers = 3;
  int64_t hidden = 0;  ///< Features inside the feed-forward part; 0 means 2 * width.
  bool causal = false;
  /// One weight "attention.in_proj" [3 * width, width] instead of three ("query", "key", "value").
  bool joint_projection = false;

  /// InputError when the sizes do not fit one another.
  void validate() const;
};

/// Declares "token_embedding" and "position_embedding", for sequences of up to `length` tokens.
void declare_embeddings(ParamList& params, int64_t vocabulary, int64_t length, int64_t width);

/// Embedded tokens [B,T] int64, with their learned positions: [P,B*T,F].
at::Tensor embed_tokens(const at::Tensor& tokens, const at::Tensor& token_table,
                        const at::Tensor& position_table);

/// Declares "blocks.0.norm1", "blocks.0.attention.query", ..., for every layer.
void declare_blocks(ParamList& params, const TransformerOptions& options);

/// Pre-norm blocks of attention and a GELU feed-forward part: x [P,B*T,F] to the same shape.
at::Tensor forward_blocks(at::Tensor x, int64_t tokens, ParamCursor& cursor,
                          const TransformerOptions& options);

}  // namespace mnemosyne::tasks
