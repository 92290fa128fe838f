#include "mnemosyne/ops/reference_gradient.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/alias.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>

namespace mnemosyne::ops {

std::vector<at::Tensor> reference_gradients(
    const std::function<std::vector<at::Tensor>(at::TensorList)>& reference, at::TensorList inputs,
    at::TensorList grads, size_t count) {
  const at::AutoGradMode with_graph(true);
  std::vector<at::Tensor> places = inputs.vec(), sources, outputs, ups;
  for (size_t i = 0; i < count; ++i) {
    at::Tensor& x = places[i];
    if (!x.defined()) continue;
    x = x.requires_grad() ? at::alias(x) : x.detach().requires_grad_(true);
    sources.push_back(x);
  }
  const std::vector<at::Tensor> all = reference(places);
  for (size_t i = 0; i < grads.size(); ++i) {
    if (!grads[i].defined() || !all[i].requires_grad()) continue;
    outputs.push_back(all[i]);
    ups.push_back(grads[i]);
  }
  std::vector<at::Tensor> found(sources.size());
  if (!outputs.empty()) {
    found = torch::autograd::grad(outputs, sources, ups, /*retain_graph=*/true,
                                  /*create_graph=*/true, /*allow_unused=*/true);
  }
  std::vector<at::Tensor> result(count);
  size_t next = 0;
  for (size_t i = 0; i < count; ++i) {
    if (!places[i].defined()) continue;
    result[i] = found[next].defined() ? found[next] : at::zeros_like(sources[next]);
    ++next;
  }
  return result;
}

}  // namespace mnemosyne::ops
