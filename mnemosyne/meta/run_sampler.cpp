#include "mnemosyne/meta/run_sampler.h"

#include <algorithm>
#include <numeric>

#include "mnemosyne/core/error.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/tasks/stacked/reparametrized.h"

namespace mnemosyne::meta {
namespace {

constexpr double kSmallestScale = 0.05;  // exp(-3): losses are scaled by exp(U(-3, 3)).

/// The index that a number in [0, 1) picks when each has its weight as share.
size_t weighted_index(const std::vector<double>& weights, double share) {
  double left = share * std::accumulate(weights.begin(), weights.end(), 0.0);
  for (size_t i = 0; i + 1 < weights.size(); ++i) {
    if (left < weights[i]) return i;
    left -= weights[i];
  }
  return weights.size() - 1;
}

/// Log-uniform in low ... high, both included.
int64_t length_between(int64_t low, int64_t high, Random& draws) {
  const double value = draws.log_uniform(static_cast<double>(low), static_cast<double>(high) + 1);
  return std::clamp(static_cast<int64_t>(value), low, high);
}

}  // namespace

optim::StepOptions Run::options() const {
  optim::StepOptions result;
  if (length_known) result.num_steps = num_steps;
  return result;
}

RunSampler::RunSampler(Families families, RunSamplerOptions options)
    : families_(std::move(families)), options_(std::move(options)) {
  if (families_.empty()) throw InputError("[meta] expected at least one task family, got none");
  std::vector<double>& weights = options_.family_weights;
  if (weights.empty()) weights.assign(families_.size(), 1.0);
  if (weights.size() != families_.size()) {
    throw InputError("[meta] expected " + std::to_string(families_.size()) +
                     " family weights, got " + std::to_string(weights.size()));
  }
  if (options_.min_steps < 1) {
    throw InputError("[meta] expected min_steps >= 1, got " + std::to_string(options_.min_steps));
  }
}

Run RunSampler::sample(uint64_t seed, int64_t horizon) const {
  Random draws(seed);
  const size_t family = weighted_index(options_.family_weights, draws.uniform());
  Run run;
  run.task = families_[family]->sample(draws.bits());
  run.seed = draws.bits();
  run.num_steps = length_between(std::min(options_.min_steps, horizon), horizon, draws);
  run.length_known = draws.chance(options_.known_fraction);
  if (draws.chance(options_.reparametrized_fraction)) {
    run.task = tasks::make_reparametrized(
        run.task, {.loss_scale = draws.log_uniform(kSmallestScale, 1 / kSmallestScale),
                   .seed = draws.bits()});
  }
  return run;
}

}  // namespace mnemosyne::meta
