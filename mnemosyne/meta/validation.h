#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mnemosyne/meta/estimator.h"
#include "mnemosyne/meta/fitness.h"
#include "mnemosyne/meta/process_group.h"
#include "mnemosyne/meta/run_sampler.h"
#include "mnemosyne/optim/update_rule.h"

namespace mnemosyne::meta {

struct ValidationOptions {
  int64_t tasks_per_family = 1;
  double length_factor = 2.0;  ///< Runs are this many times as long as the current horizon.
  double worst_weight = 0.5;   ///< Score = mean + worst_weight * worst.
  /// The floor keeps the noise of a loss near zero, a factor of five from step to step, from
  /// deciding.
  FitnessOptions fitness = {.final_weight = 1.0, .loss_floor = 1e-2};
};

/// How a rule does on the validation tasks beside a reference, lower is better, 0 is equal.
struct ValidationScore {
  double mean = 0;   ///< Mean over tasks of log(final loss / the reference's final loss).
  double worst = 0;  ///< The largest of them.
  double score = 0;  ///< mean + worst_weight * worst.
  std::vector<RunReport> runs =
      {};  ///< Per task, that with the length unknown before that with it known.
};

/// Fixed tasks, never trained on, by which weights are chosen: by the worst task beside the mean,
/// because a rule that is better on the average of a narrow family can be useless elsewhere: one
/// that was trained longer on small networks of one data set became slower on other tasks.
///
/// Every task is run with the length unknown and known to the rule; candidates and reference train
/// side by side on the same data. A run that is no longer finite counts as `fitness.log_ceiling`
/// plus 7 (e^7 is about a thousand) above the start.
class Validator {
 public:
  Validator(RunSampler::Families families, ValidationOptions options, uint64_t seed);

  using Rules = std::vector<std::shared_ptr<const optim::UpdateRule>>;

  /// One score per candidate, at a training horizon of `horizon` steps; the tasks are shared among
  /// the ranks.
  std::vector<ValidationScore> compare(
      std::shared_ptr<const optim::UpdateRule> reference, const Rules& candidates, int64_t horizon,
      int64_t num_workers, at::Device device = at::kCPU,
      const std::shared_ptr<ProcessGroup>& processes = alone()) const;

 private:
  std::vector<std::shared_ptr<const tasks::Task>> tasks_;
  std::vector<uint64_t> seeds_;
  ValidationOptions options_;
};

}  // namespace mnemosyne::meta
