#pragma once

#include <memory>
#include <vector>

#include "mnemosyne/tasks/stacked/layers.h"
#include "mnemosyne/tasks/stacked/model.h"

namespace mnemosyne::tasks {

struct ResNetOptions {
  int64_t channels = 3;                    ///< Of the images, which may have any size.
  std::vector<int64_t> widths = {16, 32};  ///< Channels of every stage; all but the first halve
                                           ///< height and width.
  int64_t blocks = 1;                      ///< Of every stage.
  int64_t num_classes = 10;
  Activation activation = Activation::kRelu;
  bool batch_norm = true;  ///< false: convolutions have biases instead.
};

/// A residual network of basic blocks (He et al., arXiv 1512.03385) with torchvision's names: a
/// convolution "conv1", stages "layer1", ... of two 3 x 3 convolutions a block, where a block that
/// changes the width has a 1 x 1 convolution "downsample.0" beside them, the mean over the image,
/// and a head "fc". Batch norm takes the statistics of the batch at hand (layers.h). Inputs
/// [B,C,H,W], outputs [P,B,num_classes].
std::shared_ptr<const Model> make_resnet(const ResNetOptions& options);

}  // namespace mnemosyne::tasks
