#include "mnemosyne/meta/persistent_evolution.h"

#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

#include "mnemosyne/core/random.h"
#include "mnemosyne/meta/checkpoint.h"
#include "mnemosyne/meta/exchange.h"
#include "mnemosyne/meta/parallel.h"

namespace mnemosyne::meta {
namespace {

constexpr uint64_t kNoiseStream = 3;

/// Mean of log(L / L_0) over the window's steps, one per member.
std::vector<double> window_fitness(const std::vector<std::vector<float>>& losses, double first,
                                   const FitnessOptions& options) {
  std::vector<double> result(losses.front().size(), 0.0);
  for (const std::vector<float>& step : losses) {
    for (size_t p = 0; p < step.size(); ++p) {
      result[p] += log_loss_ratio(step[p], first, options) / static_cast<double>(losses.size());
    }
  }
  return result;
}

std::string place_prefix(int64_t place) { return "place." + std::to_string(place) + "."; }

}  // namespace

PersistentEvolutionEstimator::PersistentEvolutionEstimator(RunSampler sampler,
                                                           PersistentEvolutionOptions options)
    : sampler_(std::move(sampler)), options_(std::move(options)) {
  for (int64_t i = 0; i < options_.num_tasks; ++i) populations_.push_back({.life = {.place = i}});
}

MetaGradient PersistentEvolutionEstimator::estimate(const optim::UpdateRule& rule,
                                                    const OuterStep& step) {
  const NamedTensors weights = rule.weights();
  const at::Tensor scale = perturbation_scale(weights, options_.perturbation.scales);
  std::vector<MetaGradient> contributions(populations_.size());
  ProcessGroup& processes = *step.processes;
  run_parallel(processes.own_items(options_.num_tasks), step.num_workers, [&](int64_t i) {
    contributions[i] = run_window(rule, populations_[i], step, scale);
  });
  return combine_contributions(all_contributions(processes, std::move(contributions)),
                               flatten(weights).detach());
}

MetaGradient PersistentEvolutionEstimator::run_window(const optim::UpdateRule& rule,
                                                      Population& population, const OuterStep& step,
                                                      const at::Tensor& scale) const {
  const PerturbationOptions& perturbation = options_.perturbation;
  Life& life = population.life;
  const bool fresh = !life.active;
  if (fresh) life.horizon = step.horizon;
  const Run run = life_run(sampler_, life, step.seed, options_.window);
  const uint64_t seed = derive_seed(step.seed, {kNoiseStream, static_cast<uint64_t>(step.index),
                                                static_cast<uint64_t>(life.place)});
  const at::Tensor noise = perturbation_noise(scale, perturbation.num_pairs, seed);
  const at::Tensor offsets = noise.mul(scale).mul(perturbation.sigma);
  Rollout rollout(run.task, perturbed_members(rule, offsets, run), run.num_steps, run.seed,
                  step.device);
  if (!fresh) {
    rollout.restore(population.rollout);
    find_checked({{"noise_sum", population.noise_sum}}, "noise_sum", noise.scalar_type(),
                 noise.sizes());
  }
  population.noise_sum = fresh ? noise : population.noise_sum.add(noise);

  std::vector<std::vector<float>> losses;
  const int64_t end = std::min(rollout.step_index() + options_.window, run.num_steps);
  while (rollout.step_index() < end) losses.push_back(rollout.step());
  if (fresh) life.first_loss = losses.front().front();
  const std::vector<double> fitness = window_fitness(losses, life.first_loss, options_.fitness);

  MetaGradient result{.meta_loss = finite_mean(fitness),
                      .inner_steps = static_cast<int64_t>(losses.size() * fitness.size())};
  result.runs.push_back({run.task->name(), run.num_steps, result.meta_loss});
  const std::vector<double> shaped = shape_fitness(fitness, perturbation.shaping);
  if (shaped.empty()) {
    result.skipped = 1;
  } else {
    result.gradient = antithetic_gradient(shaped, population.noise_sum, scale, perturbation.sigma);
  }
  // A member that has diverged has nothing more to say, so its life ends for all.
  const bool diverged = std::any_of(fitness.begin(), fitness.end(),
                                    [](double value) { return !std::isfinite(value); });
  if (rollout.done() || diverged) {
    population = {.life = {.place = life.place, .number = life.number + 1}};
  } else {
    life.active = true;
    population.rollout = rollout.checkpoint();
  }
  return result;
}

NamedTensors PersistentEvolutionEstimator::checkpoint(ProcessGroup& processes) const {
  std::vector<NamedTensors> places(populations_.size());
  for (const int64_t i : processes.own_items(options_.num_tasks)) {
    const Population& population = populations_[i];
    NamedTensors& tensors = places[i];
    const std::string prefix = place_prefix(population.life.place);
    append_life(tensors, prefix, population.life);
    if (!population.life.active) continue;
    tensors.emplace_back(prefix + "noise_sum", population.noise_sum.clone());
    append(tensors, prefix + "rollout.", population.rollout);
  }
  return gather_tensors(processes, places);
}

void PersistentEvolutionEstimator::restore(const NamedTensors& tensors) {
  std::vector<Population> restored;
  for (int64_t i = 0; i < options_.num_tasks; ++i) {
    const NamedTensors own = select(tensors, place_prefix(i));
    Population& population = restored.emplace_back(Population{.life = find_life(own, "", i)});
    if (!population.life.active) continue;
    population.noise_sum = find(own, "noise_sum").clone();
    population.rollout = select(own, "rollout.");
  }
  populations_ = std::move(restored);
}

}  // namespace mnemosyne::meta
