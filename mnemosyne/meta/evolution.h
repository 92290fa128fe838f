#pragma once

#include "mnemosyne/meta/estimator.h"
#include "mnemosyne/meta/fitness.h"
#include "mnemosyne/meta/perturbation.h"
#include "mnemosyne/meta/run_sampler.h"

namespace mnemosyne::meta {

struct EvolutionOptions {
  int64_t num_tasks = 4;  ///< Runs per outer step, spread over the threads.
  PerturbationOptions perturbation = {};
  FitnessOptions fitness = {};
};

/// Evolution strategies over whole training runs: unbiased by truncation, blind to chaos.
///
/// Per task, 2 K networks that differ in nothing but the perturbation of the rule's weights train
/// side by side as one batched network; how their fitness differs is the gradient. For a controller
/// of some hundred weights on a strong base this learned in minutes what truncated gradients
/// through a network of thousands did not. It carries nothing from one outer step to the next.
///
///     EvolutionEstimator estimator(sampler, {.num_tasks = 4});
///     MetaGradient g = estimator.estimate(*rule, {.index = 0, .seed = 1, .horizon = 100});
class EvolutionEstimator : public GradientEstimator {
 public:
  EvolutionEstimator(RunSampler sampler, EvolutionOptions options);

  MetaGradient estimate(const optim::UpdateRule& rule, const OuterStep& step) override;

 private:
  MetaGradient evaluate_run(const optim::UpdateRule& rule, const Run& run, const at::Tensor& scale,
                            uint64_t noise_seed) const;

  RunSampler sampler_;
  EvolutionOptions options_;
};

}  // namespace mnemosyne::meta
