#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "mnemosyne/core/fields.h"
#include "mnemosyne/nn/attention_options.h"
#include "mnemosyne/nn/layer.h"
#include "mnemosyne/nn/module_holder.h"
#include "mnemosyne/nn/module_tensors.h"
#include "mnemosyne/nn/performer_block.h"

namespace mnemosyne::nn {

/// Options of a ViT.
struct ViTOptions {
  int64_t image_size = 8;  ///< Height and width.
  int64_t channels = 1;    ///< C.
  int64_t patch_size = 2;  ///< Divides image_size.
  int64_t num_classes = 10;
  int64_t width = 64;  ///< E, divisible by the heads.
  int64_t heads = 4;
  int64_t layers = 2;
  int64_t hidden = 0;  ///< Of the feed-forward part; 0: four times the width.
  AttentionOptions attention{};
  /// Of the initial weights and all random draws; none: from torch's default generator.
  std::optional<uint64_t> seed{};
};

/// All but the attention.
void bind(Fields& visit, ViTOptions& options);

/// A Vision Transformer (Dosovitskiy et al., arXiv 2010.11929) whose patches sit in the plane:
/// pre-norm blocks, the mean over the patches instead of a class token, layer norm, a linear head.
///
///     nn::ViT model({.image_size = 28, .patch_size = 4});
///     at::Tensor logits = model->forward(images);   // [B,1,28,28] to [B,10]
class ViTImpl : public torch::nn::Module, public TensorFields {
 public:
  explicit ViTImpl(const ViTOptions& options);

  /// images [B,C,image_size,image_size] to [B,num_classes].
  at::Tensor forward(const at::Tensor& images) const;

  const ViTOptions& options() const { return options_; }

  std::shared_ptr<torch::nn::Module> clone(
      const std::optional<at::Device>& device = std::nullopt) const override;

  Dense patches{nullptr};         ///< From the C patch_size^2 pixels of a patch.
  at::Tensor position_embedding;  ///< [patches,E]; only where the position is "absolute".
  std::vector<PerformerBlock> blocks;
  Norm norm{nullptr};
  Dense head{nullptr};

  std::vector<at::Tensor*> tensor_fields() override { return {&position_embedding}; }

 private:
  ViTOptions options_;
  at::Tensor positions_;  // Of patches, [patches, 2]: row and column, a function of the options.
};

MN_MODULE(ViT);

}  // namespace mnemosyne::nn
