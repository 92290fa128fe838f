#include "mnemosyne/tasks/stacked/mixer.h"

#include "mnemosyne/core/error.h"
#include "mnemosyne/tasks/stacked/layers.h"

namespace mnemosyne::tasks {
namespace {

int64_t num_patches(const MixerOptions& options) {
  const int64_t side = options.image_size / options.patch_size;
  return side * side;
}

ParamList declare(const MixerOptions& options) {
  ParamList params;
  params.linear("patch_embedding", options.channels * options.patch_size * options.patch_size,
                options.width);
  for (int64_t layer = 0; layer < options.layers; ++layer) {
    const std::string block = "blocks." + std::to_string(layer) + ".";
    params.norm(block + "norm1", options.width);
    params.linear(block + "token_mlp.fc1", num_patches(options), options.token_hidden);
    params.linear(block + "token_mlp.fc2", options.token_hidden, num_patches(options));
    params.norm(block + "norm2", options.width);
    params.linear(block + "channel_mlp.fc1", options.width, options.channel_hidden);
    params.linear(block + "channel_mlp.fc2", options.channel_hidden, options.width);
  }
  params.norm("norm", options.width);
  params.linear("head", options.width, options.num_classes);
  return params;
}

at::Tensor perceptron(const at::Tensor& x, ParamCursor& cursor) {
  const at::Tensor hidden = activate(stacked_linear(x, cursor.affine()), Activation::kGelu);
  return stacked_linear(hidden, cursor.affine());
}

class Mixer : public StackedModel {
 public:
  explicit Mixer(const MixerOptions& options) : StackedModel(declare(options)), options_(options) {}

  at::Tensor forward(at::TensorList params, const at::Tensor& inputs) const override {
    const int64_t batch = inputs.size(0), tokens = num_patches(options_), width = options_.width;
    ParamCursor cursor(params);
    const at::Tensor patches = image_patches(inputs, options_.patch_size);
    at::Tensor x = stacked_linear(patches, cursor.affine()).contiguous();
    const int64_t members = x.size(0);
    for (int64_t layer = 0; layer < options_.layers; ++layer) {
      at::Tensor y = stacked_layer_norm(x, cursor.affine())
                         .view({members, batch, tokens, width})
                         .transpose(2, 3)
                         .reshape({members, batch * width, tokens});
      y = perceptron(y, cursor).view({members, batch, width, tokens}).transpose(2, 3);
      x = x.add(y.reshape({members, batch * tokens, width}));
      y = stacked_layer_norm(x, cursor.affine());
      x = x.add(perceptron(y, cursor));
    }
    x = stacked_layer_norm(x, cursor.affine());
    x = x.view({members, batch, tokens, width}).mean(2);
    return stacked_linear(x, cursor.affine());
  }

 private:
  MixerOptions options_;
};

}  // namespace

std::shared_ptr<const Model> make_mixer(const MixerOptions& options) {
  if (options.patch_size < 1 || options.image_size % options.patch_size != 0) {
    throw InputError("[mixer] expected a patch size that divides " +
                     std::to_string(options.image_size) + ", got " +
                     std::to_string(options.patch_size));
  }
  return std::make_shared<Mixer>(options);
}

}  // namespace mnemosyne::tasks
