#include "mnemosyne/meta/evolution.h"

#include <memory>
#include <utility>

#include "mnemosyne/core/random.h"
#include "mnemosyne/meta/parallel.h"

namespace mnemosyne::meta {
namespace {

// Which draw a seed is for.
enum Stream : uint64_t { kRun = 1, kNoise = 2 };

/// The population of one run: its networks, and what they have done so far.
struct Trial {
  at::Tensor noise;                        // [K, N]
  std::unique_ptr<Rollout> rollout;        // made by the first step, in the thread that takes it
  std::vector<std::vector<float>> losses;  // by step and member
  std::vector<float> validation;           // at the end, where it counts
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
  std::vector<Run> runs;
  std::vector<Trial> trials(static_cast<size_t>(options_.num_tasks));
  for (int64_t task = 0; task < options_.num_tasks; ++task) {
    runs.push_back(sampler_.sample(seed_of(kRun, task), step.horizon));
    trials[task].noise = perturbation_noise(scale, perturbation.num_pairs, seed_of(kNoise, task));
  }
  const auto left = [&](int64_t task) {
    return runs[task].num_steps - static_cast<int64_t>(trials[task].losses.size());
  };
  const auto advance = [&](int64_t task, int64_t count) {
    const Run& run = runs[task];
    Trial& trial = trials[task];
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
  run_in_slices(options_.num_tasks, step.num_workers, {.left = left, .advance = advance});

  std::vector<MetaGradient> contributions(trials.size());
  run_parallel(options_.num_tasks, step.num_workers, [&](int64_t task) {
    const Trial& trial = trials[task];
    MetaGradient& own = contributions[task];
    own = contribution(runs[task], run_fitness(trial.losses, trial.validation, options_.fitness),
                       trial.noise, scale);
    if (own.gradient.defined()) own.gradient = gradient(rule, runs[task], own.gradient, step);
  });
  return combine_contributions(contributions, flatten(weights).detach());
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
