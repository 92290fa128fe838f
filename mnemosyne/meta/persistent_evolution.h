#pragma once

#include <vector>

#include "mnemosyne/meta/estimator.h"
#include "mnemosyne/meta/fitness.h"
#include "mnemosyne/meta/life.h"
#include "mnemosyne/meta/perturbation.h"
#include "mnemosyne/meta/run_sampler.h"

namespace mnemosyne::meta {

struct PersistentEvolutionOptions {
  int64_t num_tasks = 4;  ///< Lives side by side, one window each per outer step.
  int64_t window = 20;    ///< Inner steps per outer step.
  PerturbationOptions perturbation = {};
  FitnessOptions fitness = {};  ///< Of a window: the mean of log(L / L_0), its floor and ceiling.
};

/// Persistent evolution strategies (Vicol, Metz and Sohl-Dickstein 2021, algorithm 2): evolution in
/// windows without the bias of truncation.
///
/// Every member keeps its own network and optimizer state over the windows of a life, gets fresh
/// noise in each, and is credited with the *sum* of its noise since the life began:
///
///     gradient = mean_k (f_2k - f_2k+1) / (2 sigma) * sum_{windows so far} eps_k
///
/// which, averaged over a life's windows, is unbiased for the gradient of the mean over the whole
/// life (for shaping "none"), while weights move after every window instead of after every run.
class PersistentEvolutionEstimator : public GradientEstimator {
 public:
  PersistentEvolutionEstimator(RunSampler sampler, PersistentEvolutionOptions options);

  MetaGradient estimate(const optim::UpdateRule& rule, const OuterStep& step) override;
  NamedTensors checkpoint(ProcessGroup& processes) const override;
  void restore(const NamedTensors& tensors) override;

 private:
  /// A place: the networks of its life and what is to be credited.
  struct Population {
    Life life = {};
    NamedTensors rollout = {};  // as Rollout::checkpoint gives it
    at::Tensor noise_sum = {};  // [K, N]
  };

  MetaGradient run_window(const optim::UpdateRule& rule, Population& population,
                          const OuterStep& step, const at::Tensor& scale) const;

  RunSampler sampler_;
  PersistentEvolutionOptions options_;
  std::vector<Population> populations_;
};

}  // namespace mnemosyne::meta
