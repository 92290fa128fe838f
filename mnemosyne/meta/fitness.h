#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mnemosyne::meta {

/// How a training run is turned into one number, lower is better.
///
/// Losses enter as log(L / L_0), L_0 the run's first loss: scaling a task changes nothing.
struct FitnessOptions {
  double final_weight = 0.5;    ///< Weight of the end; the mean over the whole run has the rest.
  double final_fraction = 0.1;  ///< The end is this fraction of the steps.
  int64_t smoothing = 25;       ///< Losses at the end are means over this many steps, at most.
  double validation_weight =
      0.0;                   ///< Weight of the final validation loss, taken off the training loss.
  double loss_floor = 1e-6;  ///< Added to L / L_0: what is below it counts as zero.
  double log_ceiling = 3.0;  ///< Largest value of log(L / L_0), against single large numbers.
};

/// log(loss / first + floor), at most the ceiling; infinite for a loss that is not finite.
double log_loss_ratio(double loss, double first, const FitnessOptions& options);

/// Fitness of P members from their loss curves, losses[t][p]; `validation` is [P] or empty.
/// Infinite for a member with a non-finite loss.
std::vector<double> run_fitness(const std::vector<std::vector<float>>& losses,
                                const std::vector<float>& validation,
                                const FitnessOptions& options);

/// What happens to a population's fitness before it becomes a gradient.
enum class FitnessShaping {
  kNone,    ///< Nothing: the estimate is unbiased.
  kSpread,  ///< Divided by the population's standard deviation: no task dominates.
  kRank,    ///< Replaced by ranks in [-1/2, 1/2]: no member does, either.
};

/// "none", "spread" or "rank"; InputError otherwise.
FitnessShaping parse_shaping(const std::string& name);

/// Shaped fitness of a population. Non-finite members become the worst finite one plus a margin
/// (the population's range). Empty when no member is finite or all are equal, as then nothing can
/// be learned.
std::vector<double> shape_fitness(std::vector<double> fitness, FitnessShaping shaping);

/// Mean of the finite entries; NaN when there is none.
double finite_mean(const std::vector<double>& values);

}  // namespace mnemosyne::meta
