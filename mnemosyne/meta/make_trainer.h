#pragma once

#include <memory>

#include "mnemosyne/meta/config.h"
#include "mnemosyne/meta/trainer.h"

namespace mnemosyne::meta {

/// The rule that a configuration starts from: `make_rule(rule, rule_options)`, or what the weights
/// file `initial_weights` holds, which has to be of the same rule.
std::shared_ptr<optim::UpdateRule> make_initial_rule(const MetaConfig& config);

/// What a meta-training gives: the initial rule with these weights and with `finished_options`.
/// InputError when those are no options of the rule.
std::shared_ptr<optim::UpdateRule> make_finished_rule(const MetaConfig& config,
                                                      const NamedTensors& weights);

/// A whole meta-training from its configuration. `checkpoint_path`: where `run` saves, empty for
/// nowhere. `processes`: who shares the work, each with the same configuration.
///
///     const MetaConfig config = {.families = {"mlp"}, .validation_families = {"vit"}};
///     auto trainer = make_trainer(config, "");
///     trainer->run({.on_step = [](const OuterReport& report) { ... }});
///     auto best = make_finished_rule(config, trainer->best_weights());
///     optim::save_rule("weights.safetensors", *best, {{"config", to_text(config)}});
///
/// InputError when the configuration cannot be used, or is not that of the other ranks.
std::unique_ptr<Trainer> make_trainer(const MetaConfig& config, const std::string& checkpoint_path,
                                      std::shared_ptr<ProcessGroup> processes = alone());

}  // namespace mnemosyne::meta
