#include "mnemosyne/meta/evolution.h"

#include <memory>
#include <utility>

#include "mnemosyne/core/random.h"
#include "mnemosyne/meta/exchange.h"
#include "mnemosyne/meta/parallel.h"

namespace mnemosyne::meta {
namespace {

// Which draw a seed is for.
enum Stream : uint64_t { kRun = 1, kNoise = 2 };

/// The population of one run: its networks, and what they have done so far.
struct Trial {
  Run run;
  at::Tensor noise;                             // [K, N]
  std::unique_ptr<Rollout> rollout = {};        // made by the first step, in its thread
  std::vector<std::vector<float>> losses = {};  // by step and member
  std::vector<float> validation = {};           // at the end, where it counts
};

}  // namespace

EvolutionEstimator::EvolutionEstimator(RunSampler sampler, EvolutionOptions options)
    : sampler_(std::move(sampler)), options_(std::move(options)) {}

MetaGradient EvolutionEstimator::estimate(const optim::UpdateRule& rule, const OuterStep& step) {
  const PerturbationOptions& perturbation = options_.perturbation;
  const auto index = static_cast<uint64_t>(step.index);
  const auto seed_of = [&](Stream stream, int64_t task) {
    return derive_seed(step.seed, {stream, index, static_cast<uint64_t>(task)});
  };
  const NamedTensors weights = rule.weights();
  const at::Tensor scale = this->scale(rule);
  ProcessGroup& processes = *step.processes;
  const std::vector<int64_t> own = processes.own_items(options_.num_tasks);
  std::vector<Trial> trials;
  for (const int64_t task : own) {
    trials.push_back(
        {.run = sampler_.sample(seed_of(kRun, task), step.horizon),
         .noise = perturbation_noise(scale, perturbation.num_pairs, seed_of(kNoise, task))});
  }
  const auto left = [&](int64_t i) {
    return trials[i].run.num_steps - static_cast<int64_t>(trials[i].losses.size());
  };
  const auto advance = [&](int64_t i, int64_t count) {
    Trial& trial = trials[i];
    const Run& run = trial.run;
    if (!trial.rollout) {
      const at::Tensor offsets = trial.noise.mul(scale).mul(perturbation.sigma);
      trial.rollout = std::make_unique<Rollout>(run.task, perturbed_members(rule, offsets, run),
                                                run.num_steps, run.seed, step.device);
    }
    for (int64_t i = 0; i < count; ++i) trial.losses.push_back(trial.rollout->step());
    if (!trial.rollout->done()) return;
    if (options_.fitness.validation_weight > 0) trial.validation = trial.rollout->validation_loss();
    trial.rollout.reset();
  };
  run_in_slices(static_cast<int64_t>(own.size()), step.num_workers,
                {.left = left, .advance = advance});

  std::vector<MetaGradient> contributions(static_cast<size_t>(options_.num_tasks));
  run_parallel(static_cast<int64_t>(own.size()), step.num_workers, [&](int64_t i) {
    const Trial& trial = trials[i];
    MetaGradient& result = contributions[own[i]];
    result = contribution(trial.run, run_fitness(trial.losses, trial.validation, options_.fitness),
                          trial.noise, scale);
    if (result.gradient.defined()) {
      result.gradient = gradient(rule, trial.run, result.gradient, step);
    }
  });
  return combine_contributions(all_contributions(processes, std::move(contributions)),
                               flatten(weights).detach());
}

at::Tensor EvolutionEstimator::scale(const optim::UpdateRule& rule) const {
  return perturbation_scale(rule.weights(), options_.perturbation.scales);
}

at::Tensor EvolutionEstimator::gradient(const optim::UpdateRule& /*rule*/, const Run& /*run*/,
                                        const at::Tensor& perturbed,
                                        const OuterStep& /*step*/) const {
  return perturbed;
}

MetaGradient EvolutionEstimator::contribution(const Run& run, const std::vector<double>& fitness,
                                              const at::Tensor& noise,
                                              const at::Tensor& scale) const {
  const PerturbationOptions& perturbation = options_.perturbation;
  MetaGradient result{.meta_loss = finite_mean(fitness),
                      .inner_steps = run.num_steps * 2 * perturbation.num_pairs};
  result.runs.push_back({run.task->name(), run.num_steps, result.meta_loss});
  const std::vector<double> shaped = shape_fitness(fitness, perturbation.shaping);
  if (shaped.empty()) {
    result.skipped = 1;
  } else {
    result.gradient = antithetic_gradient(shaped, noise, scale, perturbation.sigma);
  }
  return result;
}

}  // namespace mnemosyne::meta
