#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "mnemosyne/optim/update_rule.h"
#include "mnemosyne/tasks/task.h"

namespace mnemosyne::meta {

/// One training run that a rule is judged by: what is trained, on which data, and for how long.
struct Run {
  std::shared_ptr<const tasks::Task> task;
  uint64_t seed = 0;  ///< Of the network's start and its batches.
  int64_t num_steps = 0;
  bool length_known = false;  ///< Whether the rule is told num_steps.

  optim::StepOptions options() const;
};

struct RunSamplerOptions {
  std::vector<double> family_weights = {};  ///< One per family; empty: all alike.
  int64_t min_steps = 50;       ///< Runs have min_steps to the horizon's steps, log-uniformly.
  double known_fraction = 0.5;  ///< Fraction of runs whose length is known to the rule.
  double reparametrized_fraction =
      0.0;  ///< Fraction of runs on a re-scaled task (tasks/stacked/reparametrized.h).
};

/// Draws runs: a family, a task of it, a length and whether the length is known.
///
///     RunSampler sampler({tasks::make_family("quadratic")}, {.min_steps = 20});
///     Run run = sampler.sample(seed, /*horizon=*/200);
class RunSampler {
 public:
  using Families = std::vector<std::shared_ptr<const tasks::TaskFamily>>;

  RunSampler(Families families, RunSamplerOptions options);

  /// The run of `seed`: the same one for the same arguments.
  Run sample(uint64_t seed, int64_t horizon) const;

  const Families& families() const { return families_; }

 private:
  Families families_;
  RunSamplerOptions options_;
};

}  // namespace mnemosyne::meta
