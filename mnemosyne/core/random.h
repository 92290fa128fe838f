#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <vector>

namespace mnemosyne {

// Randomness is a function of seeds: nothing runs along, so that a resumed run draws what an
// uninterrupted one would have drawn, whichever thread works first. Seeds are split in two ways,
// which recorded runs keep apart: `mix_seeds` in tasks and meta-training, `part_seed` in modules.

/// A well mixed 64-bit value of two: how one seed becomes many (a step's, an epoch's, a tensor's).
uint64_t mix_seeds(uint64_t seed, uint64_t index);

/// `mix_seeds` by each number of a path, for example (outer step, task).
uint64_t derive_seed(uint64_t seed, std::initializer_list<uint64_t> path);

/// The seed of part `index` of a module that has a seed: neighbouring seeds have nothing in common.
uint64_t part_seed(uint64_t seed, uint64_t index);

/// The seed; where there is none, one from torch's default generator, as torch::manual_seed set it.
uint64_t seed_or_draw(const std::optional<uint64_t>& seed);

/// Options whose seed has been decided, so that a module can be made of them again.
template <typename Options>
Options with_seed(Options options) {
  options.seed = seed_or_draw(options.seed);
  return options;
}

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

/// ATen's generator, for filling tensors on the CPU.
at::Generator tensor_generator(uint64_t seed);

/// N(0, deviation^2), float32: the same for the same seed, whatever else draws numbers.
at::Tensor seeded_normal(at::IntArrayRef sizes, double deviation, uint64_t seed);

}  // namespace mnemosyne
