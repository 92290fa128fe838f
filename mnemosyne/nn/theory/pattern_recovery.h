#pragma once

#include <cstdint>
#include <string>

namespace mnemosyne::nn {

/// M random patterns of N spins are written into a compact memory, one of them is disturbed, and a
/// sweep (nn/theory/hopfield.h) looks for it.
struct RecoveryOptions {
  int64_t spins = 32;                ///< N
  double beta = 0.125;               ///< Inverse temperature; beta N = |x|^2 of what is mapped.
  int64_t patterns = 8;              ///< M
  int64_t flips = 4;                 ///< Spins turned in the pattern that is looked for.
  std::string feature_map = "trig";  ///< One that estimates the kernel.
  int64_t features = 2048;           ///< R
  /// "energy": R numbers, sum_mu phi(xi_mu), differences of the energy estimated; "memory": an
  /// AssociativeMemory with keys and values xi_mu, R (N + 1) numbers, read once.
  std::string readout = "energy";
  double gamma = 1.0;                ///< Forgetting: pattern of age a weighs gamma^a.
  int64_t age = 0;                   ///< Of the pattern looked for; 0 is the newest.
  bool independent_vectors = false;  ///< As the formulas assume; otherwise orthogonal in blocks.
  int64_t trials = 25;               ///< Each with patterns, disturbance and vectors of its own.
  uint64_t seed = 0;
};

/// Means over the trials.
struct Recovery {
  double bits = 0;            ///< Share of right spins after the sweep.
  double bits_deviation = 0;  ///< The standard error of `bits`; NaN of one trial.
  double patterns = 0;        ///< Share of trials with all spins right.
  double exact_bits = 0;      ///< Of the exact energy on the same patterns and starts,
  double exact_patterns = 0;  ///< likewise.
  /// Share of right spins if each field were normal with the mean and the variance that
  /// `sum_of_estimates` gives for independent vectors: from formulas alone, without features.
  double predicted_bits = 0;
  int64_t state_numbers = 0;  ///< What the memory holds, whatever the number of patterns.
};

/// InputError for options that cannot be.
void validate(const RecoveryOptions& options);

/// InputError as `validate`.
Recovery recover_patterns(const RecoveryOptions& options);

/// What a memory of constant size holds: the number of patterns, between powers of two by their
/// shares of right spins, up to which 95 % of the spins are right. `options.patterns` is not used.
/// 0 where a single pattern is too much; NaN where `most_patterns` are no limit.
double compact_capacity(RecoveryOptions options, int64_t most_patterns = 1024);

}  // namespace mnemosyne::nn
