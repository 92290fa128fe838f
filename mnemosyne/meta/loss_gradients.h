#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "mnemosyne/tasks/task.h"

namespace mnemosyne::meta {

/// What a training step starts from: the losses [P] of P members, and their gradients, stacked as
/// the parameters are, contiguous and without a graph.
struct LossGradients {
  at::Tensor losses;
  std::vector<at::Tensor> grads;
};

/// Those of a task at `params`, each [P, ...] and requiring gradients, on a batch. A parameter that
/// the loss does not depend on has the gradient zero.
LossGradients loss_gradients(const tasks::Task& task, const std::vector<at::Tensor>& params,
                             const tasks::Batch& batch);

/// The losses [P], but NaN for every member of whose gradients one number is not finite: all that
/// has to be read of a step, on any device.
at::Tensor checked_losses(const LossGradients& step);

/// A network's loss and gradients at one step, without a graph.
struct Sample {
  double loss = 0;  ///< NaN where the loss or a gradient is not finite.
  std::vector<at::Tensor> grads = {};
};

/// That of one network at `params`, on their device, for a step's batch.
Sample sample_gradients(const tasks::Task& task, tasks::BatchStream& stream,
                        const std::vector<at::Tensor>& params, int64_t step);

/// The values of a tensor, read as float32.
std::vector<float> to_vector(const at::Tensor& values);

}  // namespace mnemosyne::meta
