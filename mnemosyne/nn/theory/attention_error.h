#pragma once

#include <cstdint>
#include <string>

namespace mnemosyne::nn {

/// T tokens are written into an AssociativeMemory, one after the other, and the last query is
/// answered: how far from discounted softmax attention, the limit of infinitely many features?
///
///     o = sum_i w_i v_i / sum_i w_i,  w_i = gamma^(T-1-i) exp(k_i.q)
struct AttentionErrorOptions {
  std::string feature_map = "hyp+";  ///< One that estimates the kernel.
  int64_t features = 64;             ///< R
  int64_t dim = 8;                   ///< D of keys and queries
  int64_t value_dim = 4;
  int64_t tokens = 120;  ///< T
  double gamma = 0.97;
  double length = 0.7;               ///< Root mean square of |k| and |q|, which are normal.
  int64_t sequences = 8;             ///< Side by side, with the same vectors.
  int64_t draws = 20;                ///< Of vectors.
  bool independent_vectors = false;  ///< As the formula assumes; otherwise orthogonal in blocks.
  uint64_t seed = 0;
};

struct AttentionError {
  double relative = 0;            ///< Root of the mean of |o' - o|^2 over that of |o|^2.
  double relative_deviation = 0;  ///< Its standard error over the draws; NaN of one draw.
  /// The same to first order in 1/sqrt(R), for independent vectors: from the variance of sum_i
  /// gamma^(T-1-i) (v_i - o) k_w(k_i, q) / sum w (`sum_of_estimates`), whose mean is zero.
  double predicted = 0;
  int64_t state_numbers = 0;  ///< Per sequence, R (V + 1), whatever T.
};

/// InputError for options that cannot be.
AttentionError measure_attention_error(const AttentionErrorOptions& options);

}  // namespace mnemosyne::nn
