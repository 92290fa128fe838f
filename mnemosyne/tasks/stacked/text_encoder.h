#pragma once

#include <memory>

#include "mnemosyne/tasks/stacked/model.h"
#include "mnemosyne/tasks/stacked/transformer.h"

namespace mnemosyne::tasks {

struct TextEncoderOptions {
  int64_t vocabulary = 1000;
  int64_t length = 16;  ///< Words of a row.
  int64_t num_classes = 6;
  TransformerOptions transformer = {.width = 32, .heads = 2, .layers = 2};
};

/// A Transformer that sees a whole text and says of which class it is: token and learned position
/// embeddings, pre-norm blocks, layer norm, the mean over the tokens, and a head. Inputs [B,T]
/// int64, outputs [P,B,num_classes].
std::shared_ptr<const Model> make_text_encoder(const TextEncoderOptions& options);

}  // namespace mnemosyne::tasks
