#include "mnemosyne/nn/layer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <mutex>

namespace mnemosyne::nn {

uint64_t part_seed(uint64_t seed, uint64_t index) {
  // One step of SplitMix64, so that neighbouring seeds have nothing in common.
  uint64_t z = seed + (index + 1) * 0x9E3779B97F4A7C15ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

uint64_t seed_or_draw(const std::optional<uint64_t>& seed) {
  if (seed.has_value()) return *seed;
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const std::lock_guard<std::mutex> lock(generator.mutex());
  return at::check_generator<at::CPUGeneratorImpl>(generator)->random64();
}

at::Tensor seeded_normal(at::IntArrayRef sizes, double deviation, uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return at::randn(sizes, generator, at::TensorOptions(at::kFloat)) * deviation;
}

DenseImpl::DenseImpl(int64_t inputs, int64_t outputs, bool with_bias, uint64_t seed)
    : torch::nn::Module("Dense") {
  const double deviation = 1.0 / std::sqrt(static_cast<double>(inputs));
  weight = register_parameter("weight", seeded_normal({outputs, inputs}, deviation, seed));
  if (with_bias)
    bias = register_parameter("bias", at::zeros({outputs}, at::TensorOptions(at::kFloat)));
}

at::Tensor DenseImpl::forward(const at::Tensor& x) const { return at::linear(x, weight, bias); }

NormImpl::NormImpl(int64_t width) : torch::nn::Module("Norm") {
  weight = register_parameter("weight", at::ones({width}, at::TensorOptions(at::kFloat)));
  bias = register_parameter("bias", at::zeros({width}, at::TensorOptions(at::kFloat)));
}

at::Tensor NormImpl::forward(const at::Tensor& x) const {
  return at::layer_norm(x, weight.sizes(), weight, bias);
}

}  // namespace mnemosyne::nn
