#pragma once

#include <cstdint>

namespace mnemosyne::nn {

/// The exact energy exp(<xi, s>), with all patterns kept: how many random patterns of N spins can
/// there be until half of the starts with `flips` spins turned are not restored by one sweep?
struct CapacityOptions {
  int64_t spins = 32;  ///< N
  int64_t flips = 4;
  double beta = 1.0;                ///< Inverse temperature.
  int64_t most_patterns = 1 << 16;  ///< Where the search ends.
  int64_t starts = 32;              ///< Of each set of patterns, from as many of them.
  int64_t trials = 8;               ///< Sets of patterns.
  uint64_t seed = 0;
};

/// The number of patterns, between the powers of two by their shares of restored starts; NaN where
/// `most_patterns` are no limit.
double exact_capacity(const CapacityOptions& options);

/// M random patterns, all of them sought from `flips` turned spins.
struct GuaranteeOptions {
  int64_t spins = 64;     ///< N
  int64_t patterns = 64;  ///< M
  double beta = 1.0;
  int64_t trials = 20;  ///< Sets of patterns; every one of each is sought.
  uint64_t seed = 0;
};

struct Guarantee {
  double distance = 0;  ///< Mean of the smallest distance between two patterns, in spins.
  double flips = 0;     ///< Mean of the most flips under the bound.
  double restored = 0;  ///< Share of patterns restored from as many: 1, or the bound is wrong.
  double twice = 0;     ///< From twice as many, where nothing is guaranteed.
};

/// `guaranteed_flips` put to the test. Sets of patterns for which the bound allows none are left
/// out; InputError when all are.
Guarantee check_guarantee(const GuaranteeOptions& options);

}  // namespace mnemosyne::nn
