#pragma once

#include <memory>

#include "mnemosyne/tasks/stacked/model.h"

namespace mnemosyne::tasks {

struct MixerOptions {
  int64_t image_size = 8;
  int64_t channels = 1;
  int64_t patch_size = 2;  ///< Divides `image_size`.
  int64_t width = 16;
  int64_t token_hidden = 16;
  int64_t channel_hidden = 32;
  int64_t layers = 2;
  int64_t num_classes = 10;
};

/// MLP-Mixer (Tolstikhin et al., arXiv 2105.01601): perceptrons over the patches and over the
/// channels in turn. Inputs [B,C,H,W], outputs [P,B,num_classes].
std::shared_ptr<const Model> make_mixer(const MixerOptions& options);

}  // namespace mnemosyne::tasks
