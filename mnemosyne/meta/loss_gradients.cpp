#include "mnemosyne/meta/loss_gradients.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cstdint>
#include <limits>

#include "mnemosyne/ops/magnitudes.h"

namespace mnemosyne::meta {
namespace {

bool is_plain(const at::Tensor& tensor) {
  return tensor.is_cpu() && tensor.scalar_type() == at::kFloat && tensor.is_contiguous();
}

}  // namespace

LossGradients loss_gradients(const tasks::Task& task, const std::vector<at::Tensor>& params,
                             const tasks::Batch& batch) {
  const at::AutoGradMode with_grad(true);
  const at::Tensor losses = task.loss(params, batch);
  const torch::autograd::variable_list grads =
      torch::autograd::grad({losses.sum()}, params, {}, std::nullopt, /*create_graph=*/false,
                            /*allow_unused=*/true);
  LossGradients result{.losses = losses.detach(), .grads = {}};
  result.grads.reserve(params.size());
  for (size_t i = 0; i < grads.size(); ++i) {
    result.grads.push_back(grads[i].defined() ? grads[i].contiguous()
                                              : at::zeros_like(params[i].detach()));
  }
  return result;
}

at::Tensor checked_losses(const LossGradients& step) {
  const at::NoGradGuard no_grad;
  if (!std::all_of(step.grads.begin(), step.grads.end(), is_plain)) {
    at::Tensor result = step.losses;
    for (const at::Tensor& grad : step.grads) {
      const at::Tensor zeros = grad * 0;  // NaN for what is not finite
      result = result + (grad.dim() > 1 ? zeros.flatten(1).sum(1) : zeros);
    }
    return result;
  }
  at::Tensor result = step.losses.clone();
  for (const at::Tensor& grad : step.grads) {
    const int64_t members = grad.size(0), size = grad.numel() / std::max<int64_t>(members, 1);
    for (int64_t m = 0; m < members; ++m) {
      const float* own = grad.const_data_ptr<float>() + m * size;
      if (ops::magnitudes_within(own, size, std::numeric_limits<float>::max())) continue;
      result.select(0, m).fill_(std::numeric_limits<double>::quiet_NaN());
    }
  }
  return result;
}

Sample sample_gradients(const tasks::Task& task, tasks::BatchStream& stream,
                        const std::vector<at::Tensor>& params, int64_t step) {
  std::vector<at::Tensor> stacked;
  for (const at::Tensor& param : params) {
    stacked.push_back(param.detach().unsqueeze(0).requires_grad_(true));
  }
  const LossGradients now =
      loss_gradients(task, stacked, tasks::on_device(stream.at(step), params[0].device()));
  Sample sample{.loss = to_vector(checked_losses(now))[0]};
  for (const at::Tensor& grad : now.grads) sample.grads.push_back(grad.squeeze(0));
  return sample;
}

std::vector<float> to_vector(const at::Tensor& values) {
  const at::Tensor contiguous = values.detach().to(at::kCPU, at::kFloat).contiguous();
  const float* data = contiguous.const_data_ptr<float>();
  return {data, data + contiguous.numel()};
}

}  // namespace mnemosyne::meta
