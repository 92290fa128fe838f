#include "mnemosyne/nn/theory/exact_capacity.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/nn/theory/hopfield.h"

namespace mnemosyne::nn {
namespace {

/// Share of `sought` [B, N], some of the patterns [M, N], that one sweep restores.
double share_restored(const at::Tensor& patterns, const at::Tensor& sought, int64_t flips,
                      double beta, uint64_t seed) {
  const at::Tensor equal_weights = at::zeros({patterns.size(0)}, patterns.options());
  const at::Tensor found =
      sweep(patterns, equal_weights, beta, flip_spins(sought, flips, seed)) == sought;
  return found.all(-1).to(at::kDouble).mean().item<double>();
}

}  // namespace

double exact_capacity(const CapacityOptions& options) {
  check_option(options.trials >= 1 && options.starts >= 1, "trials", "at least one trial and start",
               static_cast<double>(std::min(options.trials, options.starts)));
  double before = 1.0;  // of a single pattern, which nothing disturbs
  for (int64_t count = 2; count <= options.most_patterns; count *= 2) {
    double share = 0;
    for (int64_t trial = 0; trial < options.trials; ++trial) {
      const uint64_t seed =
          derive_seed(options.seed, {static_cast<uint64_t>(count), static_cast<uint64_t>(trial)});
      const at::Tensor patterns = random_patterns(count, options.spins, mix_seeds(seed, 0));
      const at::Tensor sought = patterns.narrow(0, 0, std::min(count, options.starts));
      share += share_restored(patterns, sought, options.flips, options.beta, mix_seeds(seed, 1));
    }
    share /= static_cast<double>(options.trials);
    if (share < 0.5) {
      const double octaves = (before - 0.5) / (before - share);
      return static_cast<double>(count) / 2 * std::exp2(octaves);
    }
    before = share;
  }
  return std::numeric_limits<double>::quiet_NaN();
}

Guarantee check_guarantee(const GuaranteeOptions& options) {
  Guarantee result;
  int64_t counted = 0;
  for (int64_t trial = 0; trial < options.trials; ++trial) {
    const uint64_t seed = derive_seed(options.seed, {static_cast<uint64_t>(trial)});
    const at::Tensor patterns =
        random_patterns(options.patterns, options.spins, mix_seeds(seed, 0));
    const int64_t distance = smallest_distance(patterns);
    const int64_t flips = guaranteed_flips(options.patterns, distance, options.beta);
    if (flips < 0) continue;
    ++counted;
    const auto restored = [&](int64_t turned) {
      return share_restored(patterns, patterns, turned, options.beta, mix_seeds(seed, 1));
    };
    result.distance += static_cast<double>(distance);
    result.flips += static_cast<double>(flips);
    result.restored += restored(flips);
    result.twice += restored(std::min(2 * flips, options.spins));
  }
  check_option(counted > 0, "patterns", "few enough that the bound holds without flips",
               static_cast<double>(options.patterns));
  for (double* mean : {&result.distance, &result.flips, &result.restored, &result.twice}) {
    *mean /= static_cast<double>(counted);
  }
  return result;
}

}  // namespace mnemosyne::nn
