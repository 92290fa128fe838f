#include "mnemosyne/nn/theory/pattern_recovery.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/special_ndtr.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/nn/associative_memory.h"
#include "mnemosyne/nn/theory/hopfield.h"
#include "mnemosyne/nn/theory/kernel_moments.h"
#include "mnemosyne/nn/theory/vectors.h"

namespace mnemosyne::nn {
namespace {

/// What is looked for. M = patterns, in the order in which they are written: the last is the
/// newest.
struct Trial {
  at::Tensor patterns;  // [M, N]
  at::Tensor weights;   // [M], gamma^age
  at::Tensor sought;    // [N]
  at::Tensor start;     // [N]
  uint64_t vector_seed;
};

Trial make_trial(const RecoveryOptions& options, uint64_t index) {
  const auto seed = [&](uint64_t purpose) { return derive_seed(options.seed, {index, purpose}); };
  const int64_t count = options.patterns;
  const at::Tensor patterns = random_patterns(count, options.spins, seed(0));
  const at::Tensor ages = at::arange(count - 1, -1, -1, patterns.options());
  const at::Tensor sought = patterns[count - 1 - options.age];
  return {patterns, at::full({count}, options.gamma, patterns.options()).pow(ages), sought,
          flip_spins(sought, options.flips, seed(1)), seed(2)};
}

/// States with one spin up, and down, whatever it was, for every spin: [N, N] each.
std::pair<at::Tensor, at::Tensor> both_signs(const at::Tensor& state) {
  const at::Tensor eye = at::eye(state.size(0), at::kBool);
  const at::Tensor all = state.expand({state.size(0), state.size(0)});
  return {all.masked_fill(eye, 1.0), all.masked_fill(eye, -1.0)};
}

/// Two ways to get the field of every spin, [N], from a memory of constant size, and what is known
/// of the deviation of its estimate.
class Readout {
 public:
  explicit Readout(double beta) : beta_(beta), scale_(std::sqrt(beta)) {}
  virtual ~Readout() = default;

  virtual at::Tensor field(const FeatureMap& phi, const Trial& trial) const = 0;
  virtual SumOfEstimates estimate(ops::FeatureMapKind kind, const Trial& trial) const = 0;
  virtual int64_t numbers(int64_t features, int64_t spins) const = 0;

 protected:
  double beta_;
  double scale_;  // exp of a product of states scaled by it is e^(beta <xi, s>).
};

/// Differences of E(s) = -phi(s)^T sum_mu c_mu phi(xi_mu).
class EnergyReadout final : public Readout {
 public:
  using Readout::Readout;

  at::Tensor field(const FeatureMap& phi, const Trial& trial) const override {
    const at::Tensor memory = at::matmul(trial.weights, phi(scale_ * trial.patterns));  // [R]
    const auto [up, down] = both_signs(trial.start);
    return at::matmul(phi(scale_ * up) - phi(scale_ * down), memory);
  }

  SumOfEstimates estimate(ops::FeatureMapKind kind, const Trial& trial) const override {
    const auto [up, down] = both_signs(trial.start);
    const at::Tensor a = at::cat({trial.weights, -trial.weights}).unsqueeze(0);
    const at::Tensor x = scale_ * at::cat({trial.patterns, trial.patterns});
    std::vector<at::Tensor> mean, variance;
    for (int64_t i = 0; i < trial.start.size(0); ++i) {  // [2M, 2M] moments of each
      const auto all = trial.patterns.sizes();
      const at::Tensor y = scale_ * at::cat({up[i].expand(all), down[i].expand(all)});
      const SumOfEstimates sum = sum_of_estimates(kind, a, x, y);
      mean.push_back(sum.mean);
      variance.push_back(sum.variance);
    }
    return {at::cat(mean), at::cat(variance)};
  }

  int64_t numbers(int64_t features, int64_t /*spins*/) const override { return features; }
};

/// One read of an AssociativeMemory with keys and values xi_mu.
class MemoryReadout final : public Readout {
 public:
  using Readout::Readout;

  at::Tensor field(const FeatureMap& phi, const Trial& trial) const override {
    const AssociativeMemory memory(phi);
    const int64_t spins = trial.start.size(0);
    AssociativeState state = memory.init(1, 1, spins, trial.start.options());
    // The weight of the newest is 1, so the factor between neighbours is that of forgetting.
    const at::Tensor gamma = trial.weights.size(0) > 1
                                 ? trial.weights.narrow(0, trial.weights.size(0) - 2, 1)
                                 : trial.weights;
    for (const at::Tensor& pattern : trial.patterns.unbind()) {
      const at::Tensor value = pattern.view({1, 1, spins});
      state = memory.write(state, scale_ * value, value, gamma);
    }
    const at::Tensor query = scale_ * trial.start.view({1, 1, spins});
    return memory.read(state, query).view({spins}) - std::tanh(beta_) * trial.start;
  }

  SumOfEstimates estimate(ops::FeatureMapKind kind, const Trial& trial) const override {
    // Of the field times the sum of weights, which has its sign.
    const at::Tensor a =
        trial.weights * (trial.patterns - std::tanh(beta_) * trial.start).t();  // [N, M]
    return sum_of_estimates(kind, a, scale_ * trial.patterns,
                            scale_ * trial.start.expand(trial.patterns.sizes()));
  }

  int64_t numbers(int64_t features, int64_t spins) const override { return features * (spins + 1); }
};

std::unique_ptr<Readout> make_readout(const RecoveryOptions& options) {
  one_of("readout", options.readout, {"energy", "memory"});
  if (options.readout == "energy") return std::make_unique<EnergyReadout>(options.beta);
  return std::make_unique<MemoryReadout>(options.beta);
}

double share(const at::Tensor& right) { return right.to(at::kDouble).mean().item<double>(); }

/// One trial after the other. Without `predict` no time is spent on formulas, whose moments have as
/// many entries as there are pairs of patterns.
Recovery run_trials(const RecoveryOptions& options, bool predict) {
  validate(options);
  const ops::FeatureMapKind kind = estimating_kind(options.feature_map);
  const auto vectors = static_cast<double>(num_omegas(kind, options.features));
  const std::unique_ptr<Readout> readout = make_readout(options);
  Recovery result{.state_numbers = readout->numbers(options.features, options.spins)};
  double squared_bits = 0;
  for (int64_t index = 0; index < options.trials; ++index) {
    const Trial trial = make_trial(options, static_cast<uint64_t>(index));
    const FeatureMap phi = draw_feature_map(options.feature_map, options.spins, options.features,
                                            options.independent_vectors, trial.vector_seed);
    const at::Tensor found = signs(readout->field(phi, trial)) == trial.sought;
    const at::Tensor exact = sweep(trial.patterns, trial.weights.log(), options.beta,
                                   trial.start.unsqueeze(0))[0] == trial.sought;
    const double bits = share(found);
    result.bits += bits;
    squared_bits += bits * bits;
    result.patterns += share(found.all());
    result.exact_bits += share(exact);
    result.exact_patterns += share(exact.all());
    if (!predict) continue;
    const SumOfEstimates known = readout->estimate(kind, trial);
    const at::Tensor deviations =
        trial.sought * known.mean / (known.variance / vectors).sqrt().clamp_min(1e-300);
    result.predicted_bits += share(at::special_ndtr(deviations));
  }
  const auto trials = static_cast<double>(options.trials);
  for (double* mean : {&result.bits, &result.patterns, &result.exact_bits, &result.exact_patterns,
                       &result.predicted_bits}) {
    *mean /= trials;
  }
  const double variance = std::max(0.0, squared_bits / trials - result.bits * result.bits);
  result.bits_deviation = std::sqrt(variance / (trials - 1));
  return result;
}

}  // namespace

void validate(const RecoveryOptions& options) {
  check_option(options.beta > 0 && std::isfinite(options.beta), "beta", "a positive number",
               options.beta);
  check_option(options.gamma > 0 && options.gamma <= 1, "gamma", "a number above 0 and up to 1",
               options.gamma);
  check_option(options.age >= 0 && options.age < options.patterns, "age",
               "an age below the number of patterns", static_cast<double>(options.age));
  check_option(options.flips >= 0 && options.flips <= options.spins, "flips",
               "from 0 to " + std::to_string(options.spins) + " spins",
               static_cast<double>(options.flips));
  check_option(options.trials >= 1, "trials", "at least one trial",
               static_cast<double>(options.trials));
}

Recovery recover_patterns(const RecoveryOptions& options) { return run_trials(options, true); }

double compact_capacity(RecoveryOptions options, int64_t most_patterns) {
  constexpr double kRight = 0.95;
  double before = 0;
  for (options.patterns = 1; options.patterns <= most_patterns; options.patterns *= 2) {
    const double share = run_trials(options, false).bits;
    if (share < kRight) {
      if (options.patterns == 1) return 0;
      const double octaves = (before - kRight) / (before - share);
      return static_cast<double>(options.patterns) / 2 * std::exp2(octaves);
    }
    before = share;
  }
  return std::numeric_limits<double>::quiet_NaN();
}

}  // namespace mnemosyne::nn
