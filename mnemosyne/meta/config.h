#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "mnemosyne/core/fields.h"
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
  std::string device = "cpu";
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
  int64_t output_window = 8;
  int64_t output_stride = 40;

  int64_t validate_every = 25;
  int64_t validation_tasks = 1;
  double validation_length_factor = 2.0;
  double validation_floor = 1e-2;
  double worst_weight = 0.5;
  int64_t checkpoint_every = 25;

  /// Throws InputError that names the first option that cannot be used.
  void validate() const;
};

/// Names the fields, in the order of the struct, with what the command line says of them.
void bind(Fields& visit, MetaConfig& config);

RunSamplerOptions sampler_options(const MetaConfig& config);
PerturbationOptions perturbation_options(const MetaConfig& config);
/// The entries of `estimators`; InputError for another name or form.
std::vector<NamedNumber> parse_estimators(const MetaConfig& config);

FitnessOptions fitness_options(const MetaConfig& config);
ValidationOptions validation_options(const MetaConfig& config);
TrainerOptions trainer_options(const MetaConfig& config);

/// "name = value" lines, readable as TOML: what a weights file keeps of how it was made.
std::string to_text(MetaConfig config);

/// What has to be equal in a meta-training and the checkpoint that it resumes from, by name: all
/// fields but those that say for how long, with how many threads, where and how often to save, and
/// those of the finished rule.
std::map<std::string, std::string> resume_metadata(MetaConfig config);

}  // namespace mnemosyne::meta
