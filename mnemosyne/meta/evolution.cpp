#include "mnemosyne/meta/evolution.h"

#include <algorithm>
#include <numeric>

#include "mnemosyne/core/error.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/meta/parallel.h"

namespace mnemosyne::meta {
namespace {

// Which draw a seed is for.
enum Stream : uint64_t { kRun = 1, kNoise = 2 };

}  // namespace

EvolutionEstimator::EvolutionEstimator(RunSampler sampler, EvolutionOptions options)
    : sampler_(std::move(sampler)), options_(std::move(options)) {}

MetaGradient EvolutionEstimator::estimate(const optim::UpdateRule& rule, const OuterStep& step) {
  const int64_t num_tasks = options_.num_tasks;
  const auto index = static_cast<uint64_t>(step.index);
  std::vector<Run> runs;
  for (int64_t task = 0; task < num_tasks; ++task) {
    const uint64_t seed = derive_seed(step.seed, {kRun, index, static_cast<uint64_t>(task)});
    runs.push_back(sampler_.sample(seed, step.horizon));
  }
  // Longest first, so that no thread is left with a long run at the end.
  std::vector<int64_t> order(runs.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return runs[a].num_steps > runs[b].num_steps; });

  const NamedTensors weights = rule.weights();
  const at::Tensor scale = perturbation_scale(weights, options_.perturbation.scales);
  std::vector<MetaGradient> contributions(runs.size());
  run_parallel(order, step.num_workers, [&](int64_t task) {
    const uint64_t seed = derive_seed(step.seed, {kNoise, index, static_cast<uint64_t>(task)});
    contributions[task] = evaluate_run(rule, runs[task], scale, seed);
  });
  return combine_contributions(contributions, flatten(weights).detach());
}

MetaGradient EvolutionEstimator::evaluate_run(const optim::UpdateRule& rule, const Run& run,
                                              const at::Tensor& scale, uint64_t noise_seed) const {
  const PerturbationOptions& perturbation = options_.perturbation;
  const at::Tensor noise = perturbation_noise(scale, perturbation.num_pairs, noise_seed);
  const at::Tensor offsets = noise.mul(scale).mul(perturbation.sigma);
  Rollout rollout(run.task, perturbed_members(rule, offsets, run), run.num_steps, run.seed);
  std::vector<std::vector<float>> losses;
  while (!rollout.done()) losses.push_back(rollout.step());
  std::vector<float> validation;
  if (options_.fitness.validation_weight > 0) validation = rollout.validation_loss();

  const std::vector<double> fitness = run_fitness(losses, validation, options_.fitness);
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
