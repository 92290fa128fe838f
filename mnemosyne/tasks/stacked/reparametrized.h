#pragma once

#include <cstdint>
#include <memory>

#include "mnemosyne/tasks/task.h"

namespace mnemosyne::tasks {

struct ReparametrizedOptions {
  double sigma = 1.0;       ///< Standard deviation of every tensor's logarithmic scale.
  double loss_scale = 1.0;  ///< Positive; multiplies the loss.
  uint64_t seed = 0;        ///< Draws the scales.
};

/// The same problem in other units, for meta-training: every tensor has a scale s = exp(sigma
/// N(0,1)), what is stored and trained is p / s, and the network sees it times s. Losses and
/// accuracies at the start are the inner task's (the loss times `loss_scale`), but gradients and
/// step sizes are other ones, and no learned optimizer can lean on the usual ones (random scaling:
/// Lv et al., arXiv 1706.03041).
std::shared_ptr<const Task> make_reparametrized(std::shared_ptr<const Task> inner,
                                                const ReparametrizedOptions& options);

}  // namespace mnemosyne::tasks
