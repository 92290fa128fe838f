#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "mnemosyne/meta/fitness.h"
#include "mnemosyne/meta/loss_gradients.h"

namespace mnemosyne::meta {

/// The updates of a window, still attached to the weights that made them, and dJ/du of each.
struct UpdateTrace {
  std::vector<std::vector<at::Tensor>> updates;     ///< by step and parameter
  std::vector<std::vector<at::Tensor>> cotangents;  ///< the same
  double objective = 0;                             ///< J

  /// dJ/du_s = - sum_{t>s} w_t g_t for losses that follow the updates, w_t = 1 / (K (L_t + floor));
  /// samples[s] is at x_{s+1}.
  void set_losses(const std::vector<Sample>& samples, double first_loss,
                  const FitnessOptions& options);

  /// Adds a step's gradient of 1/2 mean (u - f e)^2 / mean e^2, averaged over the tensors and the
  /// window's steps, for an expert's update e at its full rate and the schedule's factor f. Over (f
  /// e)^2 the last steps of a schedule that falls to zero would outweigh all others.
  void add_imitation(const std::vector<at::Tensor>& own, const std::vector<at::Tensor>& expert,
                     double factor, int64_t window);

  /// Sum_s <u_s, dJ/du_s> differentiated with respect to `theta` [N].
  at::Tensor pull_back(const at::Tensor& theta) const;
};

}  // namespace mnemosyne::meta
