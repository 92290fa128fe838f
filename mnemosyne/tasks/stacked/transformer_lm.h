#pragma once

#include <memory>

#include "mnemosyne/tasks/stacked/model.h"
#include "mnemosyne/tasks/stacked/transformer.h"

namespace mnemosyne::tasks {

struct TransformerLmOptions {
  int64_t vocabulary = 32;
  int64_t context = 32;  ///< The longest sequence.
  TransformerOptions transformer = {.width = 32, .heads = 2, .layers = 2, .causal = true};
  bool tied = false;  ///< The head has the token embedding as its weight, and no bias.
};

/// A causal Transformer over characters: token and learned position embeddings, pre-norm blocks,
/// layer norm and a head. Inputs [B,T] int64, outputs [P,B*T,vocabulary].
std::shared_ptr<const Model> make_transformer_lm(const TransformerLmOptions& options);

}  // namespace mnemosyne::tasks
