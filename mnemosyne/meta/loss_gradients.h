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

/// The values of a tensor, read as float32.
std::vector<float> to_vector(const at::Tensor& values);

}  // namespace mnemosyne::meta
