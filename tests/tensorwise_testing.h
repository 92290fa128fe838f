#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

#include "mnemosyne/optim/tensorwise.h"
#include "rule_testing.h"
#include "testing.h"

/// Tensor-wise rules of small chunks, with lists to step.
namespace mnemosyne::testing {

// A scalar, vectors, matrices of some meta-tokens, convolutions, nothing.
inline const std::vector<std::vector<int64_t>> kTensorShapes{
    {}, {5}, {20, 15}, {1, 7}, {7, 1}, {4, 3, 3, 3}, {2, 2, 3, 2, 2}, {150}, {0, 3}};

/// Chunks of 4 coordinates and of 3 of these.
inline optim::TensorwiseOptions small_tensorwise(optim::TensorwiseNetworkOptions network = {}) {
  network.chunk_lengths = {4, 3};
  network.hidden = 6;
  return {.network = network};
}

/// A decoder that says something.
inline std::shared_ptr<optim::UpdateRule> with_random_head(const optim::TensorwiseOptions& options,
                                                           double scale = 0.5, uint64_t seed = 7) {
  at::manual_seed(seed);
  const optim::TensorwiseRule rule(options);
  NamedTensors weights = rule.weights();
  for (auto& [name, weight] : weights) {
    if (name.starts_with("head.")) weight = scale * at::randn(weight.sizes());
  }
  return rule.with_weights(weights);
}

inline std::vector<at::Tensor> gradients(const std::vector<std::vector<int64_t>>& shapes,
                                         int64_t step, at::ScalarType dtype = at::kFloat) {
  return waves(shapes, 1.7 * static_cast<double>(step) + 1.0, dtype);
}

}  // namespace mnemosyne::testing
