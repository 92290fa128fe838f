#include "mnemosyne/tasks/stacked/transformer_lm.h"

#include "mnemosyne/core/error.h"

namespace mnemosyne::tasks {
namespace {

ParamList declare(const TransformerLmOptions& options) {
  const int64_t width = options.transformer.width;
  ParamList params;
  declare_embeddings(params, options.vocabulary, options.context, width);
  declare_blocks(params, options.transformer);
  params.norm("norm", width);
  if (!options.tied) params.linear("head", width, options.vocabulary);
  return params;
}

class TransformerLm : public StackedModel {
 public:
  explicit TransformerLm(const TransformerLmOptions& options)
      : StackedModel(declare(options)), options_(options) {}

  at::Tensor forward(at::TensorList params, const at::Tensor& inputs) const override {
    ParamCursor cursor(params);
    const at::Tensor &tokens = cursor.next(), &positions = cursor.next();
    at::Tensor x = embed_tokens(inputs, tokens, positions);
    x = forward_blocks(x, inputs.size(1), cursor, options_.transformer);
    x = stacked_layer_norm(x, cursor.affine());
    return options_.tied ? x.matmul(tokens.transpose(1, 2)) : stacked_linear(x, cursor.affine());
  }

 private:
  TransformerLmOptions options_;
};

}  // namespace

std::shared_ptr<const Model> make_transformer_lm(const TransformerLmOptions& options) {
  options.transformer.validate();
  if (options.vocabulary < 2 || options.context < 1 || !options.transformer.causal) {
    throw InputError(
        "[transformer_lm] expected a vocabulary of two or more, a positive context and causal "
        "attention, got " +
        std::to_string(options.vocabulary) + " and " + std::to_string(options.context));
  }
  return std::make_shared<TransformerLm>(options);
}

}  // namespace mnemosyne::tasks
