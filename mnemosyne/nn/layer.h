#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "mnemosyne/core/random.h"

namespace mnemosyne::nn {

/// y = x W^T + b with weights N(0, 1 / inputs) of a seed.
class DenseImpl : public torch::nn::Module {
 public:
  DenseImpl(int64_t inputs, int64_t outputs, bool with_bias, uint64_t seed);

  /// [..., inputs] to [..., outputs].
  at::Tensor forward(const at::Tensor& x) const;

  at::Tensor weight;  ///< [outputs, inputs].
  at::Tensor bias;    ///< [outputs], zero at the start; undefined without.
};

TORCH_MODULE(Dense);

/// Layer normalisation over the last axis.
class NormImpl : public torch::nn::Module {
 public:
  explicit NormImpl(int64_t width);

  at::Tensor forward(const at::Tensor& x) const;

  at::Tensor weight, bias;  ///< [width].
};

TORCH_MODULE(Norm);

}  // namespace mnemosyne::nn
