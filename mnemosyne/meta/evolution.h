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

 protected:
  const EvolutionOptions& options() const { return options_; }

  /// What sigma is multiplied by for each weight, [N]; what is not perturbed has zero.
  virtual at::Tensor scale(const optim::UpdateRule& rule) const;

  /// The gradient of a run by all weights from that by those that were perturbed, both [N].
  virtual at::Tensor gradient(const optim::UpdateRule& rule, const Run& run,
                              const at::Tensor& perturbed, const OuterStep& step) const;

 private:
  /// What the fitness [2 K] of a run's population says of the gradient by what was perturbed.
  MetaGradient contribution(const Run& run, const std::vector<double>& fitness,
                            const at::Tensor& noise, const at::Tensor& scale) const;

  RunSampler sampler_;
  EvolutionOptions options_;
};

}  // namespace mnemosyne::meta
