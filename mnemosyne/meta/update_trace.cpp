#include "mnemosyne/meta/update_trace.h"

#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>

#include <optional>

namespace mnemosyne::meta {

void UpdateTrace::set_losses(const std::vector<Sample>& samples, double first_loss,
                             const FitnessOptions& options) {
  const auto K = static_cast<double>(samples.size());
  std::vector<at::Tensor> later;  // sum over t > s so far
  for (const at::Tensor& grad : samples.front().grads) later.push_back(at::zeros_like(grad));
  cotangents.resize(samples.size());
  for (size_t s = samples.size(); s-- > 0;) {
    const double w = 1 / (K * (samples[s].loss + options.loss_floor * first_loss));
    objective += log_loss_ratio(samples[s].loss, first_loss, options) / K;
    for (size_t i = 0; i < later.size(); ++i) later[i] = later[i].sub(samples[s].grads[i], w);
    cotangents[s] = later;
  }
}

void UpdateTrace::add_imitation(const std::vector<at::Tensor>& own,
                                const std::vector<at::Tensor>& expert, double factor,
                                int64_t window) {
  std::vector<at::Tensor>& step = cotangents.emplace_back();
  for (size_t i = 0; i < own.size(); ++i) {
    const at::Tensor difference = own[i].detach().sub(expert[i], factor);
    const double square = expert[i].square().mean().item<double>();
    const double share = 1 / static_cast<double>(own.size() * static_cast<size_t>(window));
    const double scale = square > 0 ? share / square : 0;
    objective += 0.5 * scale * difference.square().mean().item<double>();
    step.push_back(difference.mul(scale / static_cast<double>(difference.numel())));
  }
}

at::Tensor UpdateTrace::pull_back(const at::Tensor& theta) const {
  std::vector<at::Tensor> outputs, gradients;
  for (size_t s = 0; s < updates.size(); ++s) {
    for (size_t i = 0; i < updates[s].size(); ++i) {
      if (!updates[s][i].requires_grad()) continue;
      outputs.push_back(updates[s][i]);
      gradients.push_back(cotangents[s][i].to(outputs.back().scalar_type()));
    }
  }
  if (outputs.empty()) return at::zeros_like(theta);
  const std::vector<at::Tensor> grads =
      torch::autograd::grad(outputs, {theta}, gradients, std::nullopt, false, true);
  return grads[0].defined() ? grads[0] : at::zeros_like(theta);
}

}  // namespace mnemosyne::meta
