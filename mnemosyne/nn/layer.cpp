#include "mnemosyne/nn/layer.h"

#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "mnemosyne/nn/copy_module.h"

namespace mnemosyne::nn {

DenseImpl::DenseImpl(int64_t inputs, int64_t outputs, bool with_bias, uint64_t seed)
    : torch::nn::Module("Dense") {
  const double deviation = 1.0 / std::sqrt(static_cast<double>(inputs));
  weight = register_parameter("weight", seeded_normal({outputs, inputs}, deviation, seed));
  if (with_bias)
    bias = register_parameter("bias", at::zeros({outputs}, at::TensorOptions(at::kFloat)));
}

at::Tensor DenseImpl::forward(const at::Tensor& x) const { return at::linear(x, weight, bias); }

// Sizes are those of the parameter that is registered: a call may have put another in the field.
std::shared_ptr<torch::nn::Module> DenseImpl::clone(const std::optional<at::Device>& device) const {
  const at::Tensor own = named_parameters()["weight"];
  const auto copy =
      std::make_shared<DenseImpl>(own.size(1), own.size(0), bias.defined(), /*seed=*/0);
  copy_module(*this, *copy, device);
  return copy;
}

NormImpl::NormImpl(int64_t width) : torch::nn::Module("Norm") {
  weight = register_parameter("weight", at::ones({width}, at::TensorOptions(at::kFloat)));
  bias = register_parameter("bias", at::zeros({width}, at::TensorOptions(at::kFloat)));
}

at::Tensor NormImpl::forward(const at::Tensor& x) const {
  return at::layer_norm(x, weight.sizes(), weight, bias);
}

std::shared_ptr<torch::nn::Module> NormImpl::clone(const std::optional<at::Device>& device) const {
  const auto copy = std::make_shared<NormImpl>(named_parameters()["weight"].size(0));
  copy_module(*this, *copy, device);
  return copy;
}

}  // namespace mnemosyne::nn
