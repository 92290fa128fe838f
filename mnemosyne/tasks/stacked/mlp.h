#pragma once

#include <memory>
#include <vector>

#include "mnemosyne/tasks/stacked/layers.h"
#include "mnemosyne/tasks/stacked/model.h"

namespace mnemosyne::tasks {

struct MlpOptions {
  /// Features of the input, of every hidden layer, and of the output; at least two.
  std::vector<int64_t> sizes = {64, 32, 10};
  Activation activation = Activation::kRelu;
  Norm norm = Norm::kNone;  ///< "norms.0", ..., of what every hidden layer gives its activation.
  bool residual = false;    ///< Hidden layers as wide as the one before add to it.
};

/// Linear layers "layers.0", "layers.1", ... with an activation between them. Inputs of any shape
/// [B, ...] are flattened; outputs [P,B,sizes.back()].
///
///     auto mlp = make_mlp({.sizes = {784, 256, 10}});
std::shared_ptr<const Model> make_mlp(const MlpOptions& options);

}  // namespace mnemosyne::tasks
