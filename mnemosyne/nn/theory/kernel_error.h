#pragma once

#include <cstdint>
#include <string>

namespace mnemosyne::nn {

/// How far R random features are from exp(x.y), for pairs of random directions.
struct KernelErrorOptions {
  std::string feature_map = "hyp+";  ///< One that estimates the kernel.
  int64_t dim = 8;                   ///< D
  int64_t features = 16;             ///< R
  double length = 0.5;               ///< |x| = |y|
  int64_t pairs = 64;                ///< Of directions, the same for the same seed.
  int64_t draws = 4000;              ///< Of the vectors, each for all pairs.
  bool independent_vectors = false;  ///< As the formula assumes; otherwise orthogonal in blocks.
  uint64_t seed = 0;
};

/// Errors relative to exp(x.y), means over pairs and draws, with the standard errors of the draws.
struct KernelError {
  double bias = 0;
  double bias_deviation = 0;  ///< Of `bias`, which is zero within a few of it.
  double squared = 0;
  double squared_deviation = 0;
  double predicted = 0;  ///< `estimate_variance` over exp(x.y)^2, over the vectors: of `squared`.
};

/// InputError for options that cannot be.
KernelError measure_kernel_error(const KernelErrorOptions& options);

}  // namespace mnemosyne::nn
