#pragma once

#include <memory>
#include <vector>

#include "mnemosyne/tasks/stacked/layers.h"
#include "mnemosyne/tasks/stacked/model.h"

namespace mnemosyne::tasks {

struct ConvNetOptions {
  int64_t image_size = 8;   ///< Height, and width where that is not given.
  int64_t image_width = 0;  ///< 0: images are square.
  int64_t channels = 1;
  std::vector<int64_t> widths = {16, 32};  ///< Channels of every convolution.
  int64_t stride = 2;  ///< Of every convolution; kernels are 3 x 3, padded by 1.
  int64_t num_classes = 10;
  Activation activation = Activation::kRelu;
};

/// Convolutions "convs.0", ..., each with an activation, and a linear head on all that is left.
/// Inputs [B,C,H,W], outputs [P,B,num_classes].
std::shared_ptr<const Model> make_conv_net(const ConvNetOptions& options);

}  // namespace mnemosyne::tasks
