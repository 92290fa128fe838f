#include "mnemosyne/nn/copy_module.h"

#include <ATen/core/grad_mode.h>

namespace mnemosyne::nn {

void copy_module(const torch::nn::Module& from, torch::nn::Module& copy,
                 const std::optional<at::Device>& device) {
  const at::NoGradGuard no_grad;
  copy.train(from.is_training());
  const auto own = [&](const at::Tensor& tensor) {
    return tensor.detach().to(device.value_or(tensor.device()), tensor.scalar_type(), false,
                              /*copy=*/true);
  };
  const auto parameters = from.named_parameters();
  for (auto& item : copy.named_parameters()) item.value().set_data(own(parameters[item.key()]));
  const auto buffers = from.named_buffers();
  for (auto& item : copy.named_buffers()) item.value().set_data(own(buffers[item.key()]));
}

}  // namespace mnemosyne::nn
