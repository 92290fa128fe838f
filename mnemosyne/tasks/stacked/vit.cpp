#include "mnemosyne/tasks/stacked/vit.h"

#include "mnemosyne/core/error.h"

namespace mnemosyne::tasks {
namespace {

int64_t num_patches(const VitOptions& options) {
  const int64_t side = options.image_size / options.patch_size;
  return side * side;
}

ParamList declare(const VitOptions& options) {
  const int64_t width = options.transformer.width;
  ParamList params;
  params.linear("patch_embedding", options.channels * options.patch_size * options.patch_size,
                width);
  params.add("position_embedding", {num_patches(options), width}, {Init::Kind::kNormal, 0.02});
  declare_blocks(params, options.transformer);
  params.norm("norm", width);
  params.linear("head", width, options.num_classes);
  return params;
}

class Vit : public StackedModel {
 public:
  explicit Vit(const VitOptions& options) : StackedModel(declare(options)), options_(options) {}

  at::Tensor forward(at::TensorList params, const at::Tensor& inputs) const override {
    const int64_t batch = inputs.size(0), tokens = num_patches(options_);
    const int64_t width = options_.transformer.width;
    ParamCursor cursor(params);
    at::Tensor x = stacked_linear(image_patches(inputs, options_.patch_size), cursor.affine());
    const int64_t members = x.size(0);
    const at::Tensor& position = cursor.next();
    x = x.unflatten(1, {batch, tokens}).add(position.unsqueeze(1)).contiguous();
    x = forward_blocks(x.view({members, batch * tokens, width}), tokens, cursor,
                       options_.transformer);
    x = x.view({members, batch, tokens, width}).mean(2);
    x = stacked_layer_norm(x, cursor.affine());
    return stacked_linear(x, cursor.affine());
  }

 private:
  VitOptions options_;
};

}  // namespace

std::shared_ptr<const Model> make_vit(const VitOptions& options) {
  options.transformer.validate();
  if (options.patch_size < 1 || options.image_size % options.patch_size != 0) {
    throw InputError("[vit] expected a patch size that divides " +
                     std::to_string(options.image_size) + ", got " +
                     std::to_string(options.patch_size));
  }
  return std::make_shared<Vit>(options);
}

}  // namespace mnemosyne::tasks
