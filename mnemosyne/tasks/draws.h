#pragma once

#include "mnemosyne/core/random.h"
#include "mnemosyne/tasks/stacked/layers.h"

namespace mnemosyne::tasks {

/// What several families draw alike.

inline Activation draw_activation(Random& random) {
  return random.choose(
      {Activation::kRelu, Activation::kTanh, Activation::kGelu, Activation::kSigmoid});
}

inline Norm draw_norm(Random& random) {
  return random.choose({Norm::kNone, Norm::kLayer, Norm::kBatch});
}

}  // namespace mnemosyne::tasks
