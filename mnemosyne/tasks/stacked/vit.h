#pragma once

#include <memory>

#include "mnemosyne/tasks/stacked/model.h"
#include "mnemosyne/tasks/stacked/transformer.h"

namespace mnemosyne::tasks {

struct VitOptions {
  int64_t image_size = 8;  ///< Height and width.
  int64_t channels = 1;
  int64_t patch_size = 2;  ///< Divides `image_size`.
  int64_t num_classes = 10;
  TransformerOptions transformer = {};
};

/// A Vision Transformer (Dosovitskiy et al., arXiv 2010.11929): patches, a learned position,
/// pre-norm blocks, the mean over the patches instead of a class token, layer norm and a linear
/// head. Inputs [B,C,H,W], outputs [P,B,num_classes].
std::shared_ptr<const Model> make_vit(const VitOptions& options);

}  // namespace mnemosyne::tasks
