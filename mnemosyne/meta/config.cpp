#include "mnemosyne/meta/config.h"

#include <set>
#include <sstream>

#include "mnemosyne/core/error.h"

namespace mnemosyne::meta {
namespace {

std::string text_of(const std::string& value) {
  std::string result = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + "\"";
}

std::string text_of(bool value) { return value ? "true" : "false"; }
std::string text_of(int64_t value) { return std::to_string(value); }
std::string text_of(uint64_t value) { return std::to_string(value); }

std::string text_of(double value) {
  std::ostringstream stream;
  stream.precision(17);
  stream << value;
  return stream.str();
}

template <typename T>
std::string text_of(const std::vector<T>& values) {
  std::string result = "[";
  for (const T& value : values) {
    if (result.size() > 1) result += ", ";
    result += text_of(value);
  }
  return result + "]";
}

void require(bool fine, const char* name, const std::string& expected, const std::string& got) {
  if (!fine) throw InputError("[" + std::string(name) + "] expected " + expected + ", got " + got);
}

void require_at_least(int64_t value, int64_t least, const char* name) {
  require(value >= least, name, "at least " + std::to_string(least), std::to_string(value));
}

void require_positive(double value, const char* name) {
  require(value > 0, name, "a positive number", text_of(value));
}

void require_not_negative(double value, const char* name) {
  require(value >= 0, name, "0 or a positive number", text_of(value));
}

void require_fraction(double value, const char* name) {
  require(value >= 0 && value <= 1, name, "0 to 1", text_of(value));
}

}  // namespace

void MetaConfig::validate() const {
  require(!families.empty(), "families", "at least one task family", "none");
  require(family_weights.empty() || family_weights.size() == families.size(), "family_weights",
          "one per family or none", std::to_string(family_weights.size()));
  for (const double weight : family_weights) require_positive(weight, "family_weights");
  parse_estimators(*this);
  require(validate_every == 0 || !validation_families.empty(), "validation_families",
          "at least one task family (or validate_every = 0)", "none");
  require_at_least(min_steps, 1, "min_steps");
  require_fraction(known_fraction, "known_fraction");
  require_fraction(reparametrized_fraction, "reparametrized_fraction");
  require_at_least(num_outer_steps, 0, "num_outer_steps");
  require_at_least(rate_steps, 0, "rate_steps");
  require_not_negative(max_minutes, "max_minutes");
  require_at_least(num_workers, 0, "num_workers");
  require_positive(learning_rate, "learning_rate");
  require_not_negative(clip_norm, "clip_norm");
  require_not_negative(weight_decay, "weight_decay");
  require(ema_decay >= 0 && ema_decay < 1, "ema_decay", "0 to below 1", text_of(ema_decay));
  HorizonSchedule({.lengths = horizons});
  require_at_least(steps_per_horizon, 1, "steps_per_horizon");
  require_at_least(horizon_patience, 0, "horizon_patience");
  require_at_least(num_tasks, 1, "num_tasks");
  require_at_least(num_pairs, 1, "num_pairs");
  require_positive(sigma, "sigma");
  parse_shaping(shaping);
  require_fraction(final_weight, "final_weight");
  require_fraction(final_fraction, "final_fraction");
  require_at_least(smoothing, 1, "smoothing");
  require_fraction(validation_loss_weight, "validation_loss_weight");
  require_positive(loss_floor, "loss_floor");
  require_positive(validation_floor, "validation_floor");
  require_at_least(window, 1, "window");
  require_at_least(truncated_tasks, 1, "truncated_tasks");
  require_fraction(imitation_fraction, "imitation_fraction");
  require(!expert_rates.empty(), "expert_rates", "at least one learning rate", "none");
  for (const double rate : expert_rates) require_positive(rate, "expert_rates");
  require_at_least(validate_every, 0, "validate_every");
  require_at_least(validation_tasks, 1, "validation_tasks");
  require_positive(validation_length_factor, "validation_length_factor");
  require_not_negative(worst_weight, "worst_weight");
  require_at_least(checkpoint_every, 0, "checkpoint_every");
}

RunSamplerOptions sampler_options(const MetaConfig& config) {
  return {.family_weights = config.family_weights,
          .min_steps = config.min_steps,
          .known_fraction = config.known_fraction,
          .reparametrized_fraction = config.reparametrized_fraction};
}

PerturbationOptions perturbation_options(const MetaConfig& config) {
  return {.num_pairs = config.num_pairs,
          .sigma = config.sigma,
          .scales = config.sigma_scales,
          .shaping = parse_shaping(config.shaping)};
}

std::vector<NamedNumber> parse_estimators(const MetaConfig& config) {
  require(!config.estimators.empty(), "estimators", "at least one NAME=WEIGHT", "none");
  std::vector<NamedNumber> result;
  for (const std::string& text : config.estimators) {
    const NamedNumber entry = parse_named_number(text, "estimators", 1.0);
    require(entry.name == "evolution" || entry.name == "pes" || entry.name == "truncated",
            "estimators", "one of evolution, pes, truncated", "\"" + entry.name + "\"");
    result.push_back(entry);
  }
  return result;
}

FitnessOptions fitness_options(const MetaConfig& config) {
  return {.final_weight = config.final_weight,
          .final_fraction = config.final_fraction,
          .smoothing = config.smoothing,
          .validation_weight = config.validation_loss_weight,
          .loss_floor = config.loss_floor};
}

ValidationOptions validation_options(const MetaConfig& config) {
  ValidationOptions options{.tasks_per_family = config.validation_tasks,
                            .length_factor = config.validation_length_factor,
                            .worst_weight = config.worst_weight,
                            .fitness = fitness_options(config)};
  options.fitness.final_weight = 1.0;
  options.fitness.loss_floor = config.validation_floor;
  return options;
}

TrainerOptions trainer_options(const MetaConfig& config) {
  return {.seed = config.seed,
          .num_outer_steps = config.num_outer_steps,
          .max_minutes = config.max_minutes,
          .num_workers = config.num_workers,
          .cosine_rate = config.cosine_rate,
          .rate_steps = config.rate_steps,
          .validate_every = config.validate_every,
          .checkpoint_every = config.checkpoint_every,
          .outer = {.learning_rate = config.learning_rate,
                    .clip_norm = config.clip_norm,
                    .weight_decay = config.weight_decay,
                    .ema_decay = config.ema_decay},
          .horizon = {.lengths = config.horizons,
                      .steps_per_length = config.steps_per_horizon,
                      .patience = config.horizon_patience}};
}

std::string to_text(const MetaConfig& config) {
  std::string result;
  visit_fields(config, [&](const std::string& name, const auto& value, const char*) {
    result += name + " = " + text_of(value) + "\n";
  });
  return result;
}

std::map<std::string, std::string> resume_metadata(const MetaConfig& config) {
  std::set<std::string> free = {"max_minutes", "num_workers", "checkpoint_every",
                                "finished_options"};
  if (!config.cosine_rate || config.rate_steps > 0) free.insert("num_outer_steps");
  std::map<std::string, std::string> result;
  visit_fields(config, [&](const std::string& name, const auto& value, const char*) {
    if (free.count(name) == 0) result[name] = text_of(value);
  });
  return result;
}

}  // namespace mnemosyne::meta
