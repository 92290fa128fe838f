#include "mnemosyne/tasks/stacked/text_encoder.h"

#include "mnemosyne/core/error.h"

namespace mnemosyne::tasks {
namespace {

ParamList declare(const TextEncoderOptions& options) {
  const int64_t width = options.transformer.width;
  ParamList params;
  declare_embeddings(params, options.vocabulary, options.length, width);
  declare_blocks(params, options.transformer);
  params.norm("norm", width);
  params.linear("head", width, options.num_classes);
  return params;
}

class TextEncoder : public StackedModel {
 public:
  explicit TextEncoder(const TextEncoderOptions& options)
      : StackedModel(declare(options)), options_(options) {}

  at::Tensor forward(at::TensorList params, const at::Tensor& inputs) const override {
    const int64_t batch = inputs.size(0), length = inputs.size(1);
    ParamCursor cursor(params);
    const at::Tensor &tokens = cursor.next(), &positions = cursor.next();
    at::Tensor x = embed_tokens(inputs, tokens, positions);
    x = forward_blocks(x, length, cursor, options_.transformer);
    x = stacked_layer_norm(x, cursor.affine());
    return stacked_linear(x.unflatten(1, {batch, length}).mean(2), cursor.affine());
  }

 private:
  TextEncoderOptions options_;
};

}  // namespace

std::shared_ptr<const Model> make_text_encoder(const TextEncoderOptions& options) {
  options.transformer.validate();
  if (options.vocabulary < 2 || options.length < 1 || options.transformer.causal) {
    throw InputError(
        "[text_encoder] expected a vocabulary of two or more, a positive length and attention to "
        "both sides, got " +
        std::to_string(options.vocabulary) + " and " + std::to_string(options.length));
  }
  return std::make_shared<TextEncoder>(options);
}

}  // namespace mnemosyne::tasks
