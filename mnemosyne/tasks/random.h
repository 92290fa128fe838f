#pragma once

#include <ATen/core/Generator.h>

#include <cstdint>
#include <initializer_list>
#include <vector>

namespace mnemosyne::tasks {

/// A well mixed 64-bit value of two: how one seed becomes many (a step's, an epoch's, a tensor's).
uint64_t mix_seeds(uint64_t seed, uint64_t index);

/// A small random source (SplitMix64) whose numbers are the same with every standard library, which
/// <random>'s distributions do not promise.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t bits();

  /// Uniform in [0, 1).
  double uniform();

  /// Uniform in [low, high).
  double uniform(double low, double high) { return low + (high - low) * uniform(); }

  /// exp of a uniform between the logarithms of two positive bounds.
  double log_uniform(double low, double high);

  /// Uniform in 0 ... count - 1; count has to be positive.
  int64_t below(int64_t count);

  /// Uniform in low ... high, both included.
  int64_t between(int64_t low, int64_t high) { return low + below(high - low + 1); }

  bool chance(double probability) { return uniform() < probability; }

  /// Standard normal (Box and Muller).
  double normal();

  template <typename T>
  T choose(std::initializer_list<T> options) {
    return *(options.begin() + below(static_cast<int64_t>(options.size())));
  }

 private:
  uint64_t state_;
};

/// 0 ... count - 1 in random order (Fisher and Yates).
std::vector<int64_t> permutation(int64_t count, uint64_t seed);

/// ATen's generator, for filling tensors.
at::Generator tensor_generator(uint64_t seed);

}  // namespace mnemosyne::tasks
