#pragma once

#include <cstdint>
#include <vector>

namespace mnemosyne::meta {

/// Losses of one run, one per step.
using Curve = std::vector<float>;

/// Steps over which curves are averaged before anything is read off them.
constexpr int64_t kSmoothing = 25;

/// Trailing means over `window` losses: entry i is the mean of losses i to i + window - 1, what is
/// known after i + window steps. A curve shorter than the window becomes its one mean. Infinite
/// losses make infinite means.
Curve smooth(const Curve& losses, int64_t window = kSmoothing);

/// The last entry of `smooth`: infinity when the run diverged. The curve must not be empty.
double final_loss(const Curve& losses, int64_t window = kSmoothing);

/// The curve that runs straight between values after 0, T / (n - 1), ... T steps, n of them, at
/// every one of `num_steps` = T steps: of what is measured now and then, such as validation losses.
/// Needs two values; its smoothing window is 1.
Curve between(const Curve& values, int64_t num_steps);

/// What a tuned baseline sets for the others.
struct StepsTarget {
  double loss = 0;    ///< The baseline's last smoothed loss, mean over its seeds, plus 2 %.
  int64_t steps = 0;  ///< Steps that the baseline's mean smoothed curve needs to reach it.
};

/// The target of a baseline's runs over several seeds, all of one length. Runs that diverged are
/// left out; with none left the target is infinite and no ratio is defined.
StepsTarget steps_target(const std::vector<Curve>& baseline_runs, int64_t window = kSmoothing);

/// How many times fewer steps a run needs than the baseline: the baseline's steps to the target
/// over the run's, > 1 when the run is faster. When the run never reaches the target, half of
/// (target / its last smoothed loss), at most .5 and at least .01, so that one diverged run cannot
/// decide a geometric mean alone. NaN when the target is not finite.
///
/// Where the definition speaks of seeds it is taken so: target and baseline's steps come from the
/// mean over seeds, the run is that of one seed.
double steps_ratio(const StepsTarget& target, const Curve& run, int64_t window = kSmoothing);

/// exp(mean(log(values))); NaN entries are left out. NaN when nothing is left.
double geometric_mean(const std::vector<double>& values);

}  // namespace mnemosyne::meta
