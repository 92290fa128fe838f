#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mnemosyne::nn {

/// T tokens with one key and different values, so that what a read finds is how much is left of
/// each.
struct ForgettingOptions {
  std::string feature_map = "hyp+";  ///< One that is positive, not "constant".
  int64_t features = 16;             ///< R
  int64_t dim = 8;                   ///< D of keys and queries
  int64_t tokens = 64;               ///< T
  double gamma = 0.9;
  uint64_t seed = 0;
};

struct Forgetting {
  /// What a read finds of the token of age 0 (the newest), 1, ... T - 1, over what it finds of the
  /// newest: gamma^age.
  std::vector<double> weights;
  double largest_error = 0;         ///< Of `weights` against gamma^age, relative.
  int64_t numbers_after_first = 0;  ///< What the state holds after the first token,
  int64_t numbers_after_last = 0;   ///< and after the last: the same.
};

/// InputError for options that cannot be.
Forgetting measure_forgetting(const ForgettingOptions& options);

}  // namespace mnemosyne::nn
