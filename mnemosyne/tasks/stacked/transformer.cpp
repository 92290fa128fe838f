#include "mnemosyne/tasks/stacked/transformer.h"

#include <ATen/ops/cat.h>

#include "mnemosyne/core/error.h"

namespace mnemosyne::tasks {
namespace {

constexpr double kEmbeddingScale = 0.02;

int64_t hidden_size(const TransformerOptions& options) {
  return options.hidden > 0 ? options.hidden : 2 * options.width;
}

// Three projections of the same rows are one product with their weights side by side.
Affine take_projection(ParamCursor& cursor, bool joint) {
  if (joint) return cursor.affine();
  const Affine query = cursor.affine(), key = cursor.affine(), value = cursor.affine();
  return {at::cat({query.weight, key.weight, value.weight}, 1),
          at::cat({query.bias, key.bias, value.bias}, 1)};
}

}  // namespace

void TransformerOptions::validate() const {
  if (width < 1 || heads < 1 || layers < 1 || width % heads != 0) {
    throw InputError("[transformer] expected a positive width divisible by the heads, got " +
                     std::to_string(width) + " and " + std::to_string(heads));
  }
}

void declare_embeddings(ParamList& params, int64_t vocabulary, int64_t length, int64_t width) {
  params.embedding("token_embedding", vocabulary, width, kEmbeddingScale);
  params.embedding("position_embedding", length, width, kEmbeddingScale);
}

at::Tensor embed_tokens(const at::Tensor& tokens, const at::Tensor& token_table,
                        const at::Tensor& position_table) {
  const int64_t batch = tokens.size(0), length = tokens.size(1);
  const at::Tensor position = position_table.narrow(1, 0, length);
  const at::Tensor x = stacked_embedding(tokens.flatten(), token_table);
  return x.unflatten(1, {batch, length}).add(position.unsqueeze(1)).flatten(1, 2);
}

void declare_blocks(ParamList& params, const TransformerOptions& options) {
  const int64_t width = options.width;
  for (int64_t layer = 0; layer < options.layers; ++layer) {
    const std::string block = "blocks." + std::to_string(layer) + ".";
    params.norm(block + "norm1", width);
    if (options.joint_projection) {
      params.linear(block + "attention.in_proj", width, 3 * width);
    } else {
      for (const char* part : {"query", "key", "value"}) {
        params.linear(block + "attention." + part, width, width);
      }
    }
    params.linear(block + "attention.out_proj", width, width);
    params.norm(block + "norm2", width);
    params.linear(block + "mlp.fc1", width, hidden_size(options));
    params.linear(block + "mlp.fc2", hidden_size(options), width);
  }
}

at::Tensor forward_blocks(at::Tensor x, int64_t tokens, ParamCursor& cursor,
                          const TransformerOptions& options) {
  for (int64_t layer = 0; layer < options.layers; ++layer) {
    at::Tensor y = stacked_layer_norm(x, cursor.affine());
    y = stacked_linear(y, take_projection(cursor, options.joint_projection));
    y = stacked_attention(y, tokens, options.heads, options.causal);
    x = x.add(stacked_linear(y, cursor.affine()));
    y = stacked_layer_norm(x, cursor.affine());
    y = activate(stacked_linear(y, cursor.affine()), Activation::kGelu);
    x = x.add(stacked_linear(y, cursor.affine()));
  }
  return x;
}

}  // namespace mnemosyne::tasks
