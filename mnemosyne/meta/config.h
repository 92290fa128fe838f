#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "mnemosyne/meta/evolution.h"
#include "mnemosyne/meta/named_number.h"
#include "mnemosyne/meta/trainer.h"

namespace mnemosyne::meta {

/// Everything that a meta-training is made from, flat: one field per line of configs/*.toml and per
/// option of `mnemosyne meta-train`, under the same name.
struct MetaConfig {
  std::string rule = "mnemosyne";
  std::string rule_options = "{}";
  std::string finished_options = "{}";
  std::string initial_weights = "";

  std::vector<std::string> families = {"mlp"};
  std::vector<double> family_weights = {};
  std::vector<std::string> validation_families = {};
  int64_t min_steps = 50;
  double known_fraction = 0.5;
  double reparametrized_fraction = 0.0;

  std::vector<std::string> estimators = {"evolution=1"};
  bool normalize_estimators = true;
  uint64_t seed = 0;
  int64_t num_outer_steps = 1000;
  double max_minutes = 0;
  int64_t num_workers = 0;
  double learning_rate = 1e-2;
  bool cosine_rate = false;
  int64_t rate_steps = 0;
  double clip_norm = 1.0;
  double weight_decay = 0.0;
  double ema_decay = 0.98;
  std::vector<int64_t> horizons = {100, 200, 500, 1000, 1500, 2000, 3000};
  int64_t steps_per_horizon = 100;
  int64_t horizon_patience = 0;

  int64_t num_tasks = 4;
  int64_t num_pairs = 8;
  double sigma = 0.05;
  std::vector<std::string> sigma_scales = {};
  std::string shaping = "spread";
  double final_weight = 0.5;
  double final_fraction = 0.1;
  int64_t smoothing = 25;
  double validation_loss_weight = 0.0;
  double loss_floor = 1e-6;

  int64_t window = 20;
  int64_t truncated_tasks = 8;
  double imitation_fraction = 0.3;
  std::vector<double> expert_rates = {1e-3, 3e-3, 1e-2};

  int64_t validate_every = 25;
  int64_t validation_tasks = 1;
  double validation_length_factor = 2.0;
  double validation_floor = 1e-2;
  double worst_weight = 0.5;
  int64_t checkpoint_every = 25;

  /// Throws InputError that names the first option that cannot be used.
  void validate() const;
};

/// Calls `visit(name, field, description)` for every field of a MetaConfig, in the order of the
/// struct: what the command line binds, what a weights file stores and what a resumed run is
/// checked against.
template <typename Config, typename Visit>
void visit_fields(Config& c, Visit&& visit) {
  visit("rule", c.rule, "the optimizer whose weights are made");
  visit("rule_options", c.rule_options, "its options, a JSON object");
  visit("finished_options", c.finished_options,
        "options of the finished rule where they differ from those it is trained with, a JSON "
        "object");
  visit("initial_weights", c.initial_weights, "weights file to start from; empty: fresh weights");
  visit("families", c.families, "task families to train on");
  visit("family_weights", c.family_weights, "how often each is drawn; empty: all alike");
  visit("validation_families", c.validation_families, "task families that choose the weights");
  visit("min_steps", c.min_steps, "shortest training run");
  visit("known_fraction", c.known_fraction, "fraction of runs whose length the rule is told");
  visit("reparametrized_fraction", c.reparametrized_fraction,
        "fraction of runs on re-scaled tasks");
  visit("estimators", c.estimators,
        "gradient estimators to mix, NAME=WEIGHT with evolution, pes and truncated");
  visit("normalize_estimators", c.normalize_estimators, "mix directions instead of gradients");
  visit("seed", c.seed, "of every random draw");
  visit("num_outer_steps", c.num_outer_steps, "outer steps");
  visit("max_minutes", c.max_minutes, "stop after this time; 0: no limit");
  visit("num_workers", c.num_workers, "threads; 0: one per core");
  visit("learning_rate", c.learning_rate, "of the outer Adam");
  visit("cosine_rate", c.cosine_rate, "whether that falls to a tenth over rate_steps");
  visit("rate_steps", c.rate_steps, "outer steps of the cosine; 0: num_outer_steps");
  visit("clip_norm", c.clip_norm, "largest norm of a meta-gradient; 0: no clipping");
  visit("weight_decay", c.weight_decay, "pull of the weights to where they started");
  visit("ema_decay", c.ema_decay, "of the average of the weights");
  visit("horizons", c.horizons, "longest training runs, growing");
  visit("steps_per_horizon", c.steps_per_horizon, "outer steps at each horizon");
  visit("horizon_patience", c.horizon_patience,
        "go on earlier after this many validations without improvement; 0: off");
  visit("num_tasks", c.num_tasks, "training runs per outer step");
  visit("num_pairs", c.num_pairs, "antithetic pairs of perturbed rules per task");
  visit("sigma", c.sigma, "standard deviation of a weight's perturbation");
  visit("sigma_scales", c.sigma_scales, "NAME=FACTOR: times sigma for weights called so");
  visit("shaping", c.shaping, "of the fitness within a task: none, spread or rank");
  visit("final_weight", c.final_weight, "weight of the end of a run against its mean");
  visit("final_fraction", c.final_fraction, "the fraction of a run that is its end");
  visit("smoothing", c.smoothing, "steps over which losses at the end are averaged");
  visit("validation_loss_weight", c.validation_loss_weight,
        "weight of the validation loss against the training loss");
  visit("loss_floor", c.loss_floor, "fraction of the first loss that counts as zero");
  visit("window", c.window, "inner steps of a window of pes and truncated");
  visit("truncated_tasks", c.truncated_tasks, "windows per outer step of truncated");
  visit("imitation_fraction", c.imitation_fraction, "fraction of those lives led by an expert");
  visit("expert_rates", c.expert_rates, "learning rates of the experts");
  visit("validate_every", c.validate_every, "outer steps between validations; 0: never");
  visit("validation_tasks", c.validation_tasks, "tasks per validation family");
  visit("validation_length_factor", c.validation_length_factor,
        "length of validation runs as a multiple of the horizon");
  visit("validation_floor", c.validation_floor,
        "fraction of the first loss that counts as zero in a validation");
  visit("worst_weight", c.worst_weight, "weight of the worst validation task beside the mean");
  visit("checkpoint_every", c.checkpoint_every, "outer steps between checkpoints");
}

RunSamplerOptions sampler_options(const MetaConfig& config);
PerturbationOptions perturbation_options(const MetaConfig& config);
/// The entries of `estimators`; InputError for another name or form.
std::vector<NamedNumber> parse_estimators(const MetaConfig& config);

FitnessOptions fitness_options(const MetaConfig& config);
ValidationOptions validation_options(const MetaConfig& config);
TrainerOptions trainer_options(const MetaConfig& config);

/// "name = value" lines, readable as TOML: what a weights file keeps of how it was made.
std::string to_text(const MetaConfig& config);

/// What has to be equal in a meta-training and the checkpoint that it resumes from, by name: all
/// fields but those that say for how long, with how many threads and how often to save, and those
/// of the finished rule.
std::map<std::string, std::string> resume_metadata(const MetaConfig& config);

}  // namespace mnemosyne::meta
