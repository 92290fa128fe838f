#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mnemosyne/core/random.h"
#include "mnemosyne/tasks/stacked/layers.h"
#include "mnemosyne/tasks/task.h"

namespace mnemosyne::tasks {

// How a task of each family (families.h) is drawn. Every draw is a statement, or an entry of a list
// in braces, of its own: in which order a compiler takes the arguments of a call is not known, and
// the same seed has to give the same task.

using TaskPtr = std::shared_ptr<const Task>;

// Images and signals: image_families.cpp.
TaskPtr sample_mlp(std::string name, Random& random);
TaskPtr sample_residual_mlp(std::string name, Random& random);
TaskPtr sample_conv(std::string name, Random& random);
TaskPtr sample_resnet(std::string name, Random& random);
TaskPtr sample_signals(std::string name, Random& random);
TaskPtr sample_vit(std::string name, Random& random);
TaskPtr sample_autoencoder(std::string name, Random& random);
TaskPtr sample_mixer(std::string name, Random& random);

// Synthetic languages: text_families.cpp.
TaskPtr sample_lm(std::string name, Random& random);
TaskPtr sample_tied_lm(std::string name, Random& random);
TaskPtr sample_rnn_lm(std::string name, Random& random);

// Functions of numbers: function_families.cpp.
TaskPtr sample_quadratic(std::string name, Random& random);
TaskPtr sample_function(std::string name, Random& random);
TaskPtr sample_table(std::string name, Random& random);
TaskPtr sample_teacher(std::string name, Random& random);

inline Activation draw_activation(Random& random) {
  return random.choose(
      {Activation::kRelu, Activation::kTanh, Activation::kGelu, Activation::kSigmoid});
}

inline Norm draw_norm(Random& random) {
  return random.choose({Norm::kNone, Norm::kLayer, Norm::kBatch});
}

/// MlpOptions::sizes of a network with `depth` hidden layers of one width.
inline std::vector<int64_t> layer_sizes(int64_t in, int64_t depth, int64_t width, int64_t out) {
  std::vector<int64_t> sizes(depth + 2, width);
  sizes.front() = in;
  sizes.back() = out;
  return sizes;
}

}  // namespace mnemosyne::tasks
