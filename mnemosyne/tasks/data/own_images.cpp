#include "mnemosyne/tasks/data/own_images.h"

#include <ATen/ops/constant_pad_nd.h>

#include <algorithm>
#include <utility>

#include "mnemosyne/tasks/stacked/conv_net.h"
#include "mnemosyne/tasks/stacked/mlp.h"
#include "mnemosyne/tasks/stacked/vit.h"

namespace mnemosyne::tasks {
namespace {

using ModelPtr = std::shared_ptr<const Model>;

class PaddedModel : public Model {
 public:
  PaddedModel(ModelPtr model, const DataShape& images, int64_t side) : model_(std::move(model)) {
    const int64_t columns = side - images.width, rows = side - images.height;
    padding_ = {columns / 2, columns - columns / 2, rows / 2, rows - rows / 2};
  }

  std::vector<std::string> param_names() const override { return model_->param_names(); }
  std::vector<at::Tensor> init(uint64_t seed) const override { return model_->init(seed); }
  int64_t num_params() const override { return model_->num_params(); }
  NamedTensors buffers() const override { return model_->buffers(); }
  std::map<std::string, std::string> metadata() const override { return model_->metadata(); }
  bool is_batched() const override { return model_->is_batched(); }

  at::Tensor forward(at::TensorList params, const at::Tensor& inputs) const override {
    return model_->forward(params, pad(inputs));
  }

  at::Tensor loss(at::TensorList params, const at::Tensor& inputs,
                  const LossFunction& loss) const override {
    return model_->loss(params, pad(inputs), loss);
  }

 private:
  at::Tensor pad(const at::Tensor& inputs) const { return at::constant_pad_nd(inputs, padding_); }

  ModelPtr model_;
  std::vector<int64_t> padding_;  // Left, right, top, bottom.
};

}  // namespace

PatchGrid patch_grid(const DataShape& images) {
  constexpr int64_t kPatches = 8;
  const int64_t patch = (std::max(images.height, images.width) - 1) / kPatches + 1;
  return {patch, kPatches * patch};
}

ModelPtr padded_to_square(ModelPtr model, const DataShape& images, int64_t side) {
  if (images.height == side && images.width == side) return model;
  return std::make_shared<PaddedModel>(std::move(model), images, side);
}

std::vector<TaskEntry> own_image_tasks() {
  return {
      {{.name = "mlp_images",
        .description = "MLP with 2 hidden layers of 128 on your images",
        .own_data = kImageFolder},
       kOwnImages,
       [](const DataShape& images) {
         return make_mlp({.sizes = {images.channels * images.height * images.width, 128, 128,
                                    images.num_classes}});
       },
       classify_images},
      {{.name = "conv_images",
        .description = "3 convolutions of stride 2, 16-32-32 channels, on your images",
        .own_data = kImageFolder},
       kOwnImages,
       [](const DataShape& images) {
         return make_conv_net({.image_size = images.height,
                               .image_width = images.width,
                               .channels = images.channels,
                               .widths = {16, 32, 32},
                               .num_classes = images.num_classes});
       },
       classify_images},
      {{.name = "vit_images",
        .description = "Vision Transformer, width 32, 2 layers, 8x8 patches, on your images",
        .default_batch = 32,
        .own_data = kImageFolder},
       kOwnImages,
       [](const DataShape& images) {
         const PatchGrid grid = patch_grid(images);
         return padded_to_square(make_vit({.image_size = grid.side,
                                           .channels = images.channels,
                                           .patch_size = grid.patch,
                                           .num_classes = images.num_classes,
                                           .transformer = {.width = 32, .heads = 2, .layers = 2}}),
                                 images, grid.side);
       },
       classify_images},
  };
}

}  // namespace mnemosyne::tasks
