#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <optional>

namespace mnemosyne::nn {

/// The seed of part `index` of something that has a seed.
uint64_t part_seed(uint64_t seed, uint64_t index);

/// The seed; where there is none, one from torch's default generator, as torch::manual_seed set it.
uint64_t seed_or_draw(const std::optional<uint64_t>& seed);

/// Options whose seed has been decided, so that a module can be made of them again.
template <typename Options>
Options with_seed(Options options) {
  options.seed = seed_or_draw(options.seed);
  return options;
}

/// N(0, deviation^2), float32: the same for the same seed, whatever else draws numbers.
at::Tensor seeded_normal(at::IntArrayRef sizes, double deviation, uint64_t seed);

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
