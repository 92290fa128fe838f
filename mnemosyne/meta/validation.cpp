#include "mnemosyne/meta/validation.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "mnemosyne/core/error.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/meta/exchange.h"
#include "mnemosyne/meta/parallel.h"
#include "mnemosyne/meta/rollout.h"

namespace mnemosyne::meta {
namespace {

constexpr double kDivergedAboveCeiling = 7.0;
constexpr uint64_t kValidationStream = 0x76616c6964;  // Apart from the seeds of the estimators.

/// Final log-losses of all members; those that diverged get a number that is worse than any other.
std::vector<double> final_log_losses(Rollout& rollout, const FitnessOptions& options) {
  std::vector<std::vector<float>> losses;
  while (!rollout.done()) losses.push_back(rollout.step());
  std::vector<float> validation;
  if (options.validation_weight > 0) validation = rollout.validation_loss();
  std::vector<double> fitness = run_fitness(losses, validation, options);
  for (double& value : fitness) {
    if (!std::isfinite(value)) value = options.log_ceiling + kDivergedAboveCeiling;
  }
  return fitness;
}

}  // namespace

Validator::Validator(RunSampler::Families families, ValidationOptions options, uint64_t seed)
    : options_(std::move(options)) {
  for (size_t f = 0; f < families.size(); ++f) {
    for (int64_t i = 0; i < options_.tasks_per_family; ++i) {
      Random draws(derive_seed(seed, {kValidationStream, f, static_cast<uint64_t>(i)}));
      tasks_.push_back(families[f]->sample(draws.bits()));
      seeds_.push_back(draws.bits());
    }
  }
}

std::vector<ValidationScore> Validator::compare(
    std::shared_ptr<const optim::UpdateRule> reference, const Rules& candidates, int64_t horizon,
    int64_t num_workers, at::Device device, const std::shared_ptr<ProcessGroup>& processes) const {
  const int64_t num_steps =
      std::max<int64_t>(1, std::llround(options_.length_factor * static_cast<double>(horizon)));
  Rules rules = candidates;
  rules.push_back(std::move(reference));
  const size_t P = rules.size();
  std::vector<Member> members;
  for (const bool known : {false, true}) {
    for (const auto& rule : rules) {
      members.push_back({.rule = rule});
      if (known) members.back().options.num_steps = num_steps;
    }
  }
  std::vector<std::vector<double>> losses(tasks_.size());
  const auto count = static_cast<int64_t>(tasks_.size());
  run_parallel(processes->own_items(count), num_workers, [&](int64_t i) {
    Rollout rollout(tasks_[i], members, num_steps, seeds_[i], device);
    losses[i] = final_log_losses(rollout, options_.fitness);
  });
  losses = all_numbers(*processes, std::move(losses));

  std::vector<ValidationScore> scores(candidates.size());
  for (size_t c = 0; c < scores.size(); ++c) {
    ValidationScore& score = scores[c];
    std::vector<double> ratios;
    for (size_t i = 0; i < tasks_.size(); ++i) {
      for (const size_t first : {size_t{0}, P}) {
        ratios.push_back(losses[i][first + c] - losses[i][first + P - 1]);
        score.runs.push_back({tasks_[i]->name(), num_steps, ratios.back()});
      }
    }
    if (ratios.empty()) continue;
    score.mean =
        std::accumulate(ratios.begin(), ratios.end(), 0.0) / static_cast<double>(ratios.size());
    score.worst = *std::max_element(ratios.begin(), ratios.end());
    score.score = score.mean + options_.worst_weight * score.worst;
  }
  return scores;
}

}  // namespace mnemosyne::meta
