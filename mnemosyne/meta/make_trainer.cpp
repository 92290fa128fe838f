#include "mnemosyne/meta/make_trainer.h"

#include <algorithm>

#include "mnemosyne/core/error.h"
#include "mnemosyne/meta/evolution.h"
#include "mnemosyne/meta/mixture.h"
#include "mnemosyne/meta/output_evolution.h"
#include "mnemosyne/meta/persistent_evolution.h"
#include "mnemosyne/meta/run_sampler.h"
#include "mnemosyne/meta/truncated_gradient.h"
#include "mnemosyne/optim/rules.h"
#include "mnemosyne/optim/weights.h"
#include "mnemosyne/tasks/families.h"

namespace mnemosyne::meta {
namespace {

RunSampler::Families make_families(const std::vector<std::string>& names) {
  RunSampler::Families families;
  for (const std::string& name : names) families.push_back(tasks::make_family(name));
  return families;
}

std::unique_ptr<GradientEstimator> make_estimator(const std::string& name,
                                                  const RunSampler& sampler,
                                                  const MetaConfig& config) {
  const FitnessOptions fitness = fitness_options(config);
  if (name == "truncated") {
    return std::make_unique<TruncatedGradientEstimator>(
        sampler, TruncatedGradientOptions{.num_tasks = config.truncated_tasks,
                                          .window = config.window,
                                          .imitation_fraction = config.imitation_fraction,
                                          .expert_rates = config.expert_rates,
                                          .fitness = fitness});
  }
  const PerturbationOptions perturbation = perturbation_options(config);
  if (name == "pes") {
    return std::make_unique<PersistentEvolutionEstimator>(
        sampler, PersistentEvolutionOptions{.num_tasks = config.num_tasks,
                                            .window = config.window,
                                            .perturbation = perturbation,
                                            .fitness = fitness});
  }
  const EvolutionOptions evolution{
      .num_tasks = config.num_tasks, .perturbation = perturbation, .fitness = fitness};
  if (name == "output_evolution") {
    return std::make_unique<OutputEvolutionEstimator>(
        sampler, evolution,
        OutputEvolutionOptions{.window = config.output_window, .stride = config.output_stride});
  }
  return std::make_unique<EvolutionEstimator>(sampler, evolution);
}

std::unique_ptr<GradientEstimator> make_estimators(const MetaConfig& config) {
  const RunSampler sampler(make_families(config.families), sampler_options(config));
  const std::vector<NamedNumber> entries = parse_estimators(config);
  if (entries.size() == 1) return make_estimator(entries.front().name, sampler, config);
  std::vector<MixtureEstimator::Part> parts;
  for (const NamedNumber& entry : entries) {
    parts.push_back({entry.number, make_estimator(entry.name, sampler, config)});
  }
  return std::make_unique<MixtureEstimator>(std::move(parts), config.normalize_estimators);
}

// What ranks do together is a function of the configuration: each reads its own copy of the file.
void check_alike(ProcessGroup& processes, const MetaConfig& config) {
  std::string own;
  for (const auto& [name, value] : resume_metadata(config)) own += name + " = " + value + "\n";
  const std::vector<std::string> all = processes.all_gather(own);
  for (size_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank] == all[0]) continue;
    throw InputError(
        "[processes] expected the same configuration on all ranks, got another one on "
        "rank " +
        std::to_string(rank));
  }
}

/// The weights of `rule` out of a file of another one that has them all, by name and shape.
NamedTensors weights_of_another(const optim::UpdateRule& rule, const optim::UpdateRule& stored,
                                const std::string& file) {
  NamedTensors weights = rule.weights();
  const NamedTensors all = stored.weights();
  for (auto& [name, weight] : weights) {
    const auto found = std::ranges::find(all, name, &NamedTensors::value_type::first);
    if (found == all.end() || found->second.sizes() != weight.sizes()) {
      throw InputError("[initial_weights] expected weights of \"" + rule.name() + "\" in " + file +
                       ", got \"" + stored.name() + "\", which has no such " + name);
    }
    weight = found->second;
  }
  return weights;
}

}  // namespace

std::shared_ptr<optim::UpdateRule> make_initial_rule(const MetaConfig& config) {
  const std::string& file = config.initial_weights;
  if (file.empty()) return optim::make_rule(config.rule, config.rule_options);
  const std::shared_ptr<optim::UpdateRule> stored = optim::load_rule(file);
  if (stored->name() == config.rule) {
    return optim::with_options(*stored, config.rule_options, "rule_options");
  }
  const auto rule = optim::make_rule(config.rule, config.rule_options);
  return rule->with_weights(weights_of_another(*rule, *stored, file));
}

std::shared_ptr<optim::UpdateRule> make_finished_rule(const MetaConfig& config,
                                                      const NamedTensors& weights) {
  const std::shared_ptr<optim::UpdateRule> trained =
      make_initial_rule(config)->with_weights(weights);
  return optim::with_options(*trained, config.finished_options, "finished_options");
}

std::unique_ptr<Trainer> make_trainer(const MetaConfig& config, const std::string& checkpoint_path,
                                      std::shared_ptr<ProcessGroup> processes) {
  config.validate();
  check_alike(*processes, config);
  Validator validator(make_families(config.validation_families), validation_options(config),
                      config.seed);
  TrainerOptions options = trainer_options(config);
  options.checkpoint_path = checkpoint_path;
  options.processes = std::move(processes);
  auto trainer = std::make_unique<Trainer>(make_initial_rule(config), make_estimators(config),
                                           std::move(validator), std::move(options));
  make_finished_rule(config, trainer->best_weights());  // refuses now what it would in the end
  trainer->set_metadata(resume_metadata(config));
  return trainer;
}

}  // namespace mnemosyne::meta
