#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "mnemosyne/core/random.h"
#include "mnemosyne/nn/module_tensors.h"

namespace mnemosyne::nn {

/// y = x W^T + b with weights N(0, 1 / inputs) of a seed.
class DenseImpl : public torch::nn::Module, public TensorFields {
 public:
  DenseImpl(int64_t inputs, int64_t outputs, bool with_bias, uint64_t seed);

  /// [..., inputs] to [..., outputs].
  at::Tensor forward(const at::Tensor& x) const;

  /// A copy with its own parameters.
  std::shared_ptr<torch::nn::Module> clone(
      const std::optional<at::Device>& device = std::nullopt) const override;

  at::Tensor weight;  ///< [outputs, inputs].
  at::Tensor bias;    ///< [outputs], zero at the start; undefined without.

  std::vector<at::Tensor*> tensor_fields() override { return {&weight, &bias}; }
};

TORCH_MODULE(Dense);

/// Layer normalisation over the last axis.
class NormImpl : public torch::nn::Module, public TensorFields {
 public:
  explicit NormImpl(int64_t width);

  at::Tensor forward(const at::Tensor& x) const;

  /// A copy with its own parameters.
  std::shared_ptr<torch::nn::Module> clone(
      const std::optional<at::Device>& device = std::nullopt) const override;

  at::Tensor weight, bias;  ///< [width].

  std::vector<at::Tensor*> tensor_fields() override { return {&weight, &bias}; }
};

TORCH_MODULE(Norm);

}  // namespace mnemosyne::nn
