#include "mnemosyne/meta/config.h"

#include <set>
#include <sstream>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/device.h"

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
std::string text_of(const std::optional<T>& value) {
  return value.has_value() ? text_of(*value) : "none";
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

std::string text_of(const Field& field) {
  return std::visit([](const auto* value) { return text_of(*value); }, field.value);
}

void require(bool fine, const char* name, const std::string& expected, const std::string& got) {
  if (!fine) refuse(name, expected, got);
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

void bind(Fields& visit, MetaConfig& c) {
  visit("rule", c.rule, "the optimizer whose weights are made");
  visit("rule_options", c.rule_options, "its options, a JSON object");
  visit("finished_options", c.finished_options,
        "options of the finished rule where they differ from those it is trained with, a JSON "
        "object");
  visit("initial_weights", c.initial_weights,
        "weights file to start from, with rule_options in place of its own, of the same rule or of "
        "one that has its weights by name and shape; empty: fresh weights");
  visit("families", c.families, "task families to train on");
  visit("family_weights", c.family_weights, "how often each is drawn; empty: all alike");
  visit("validation_families", c.validation_families, "task families that choose the weights");
  visit("min_steps", c.min_steps, "shortest training run");
  visit("known_fraction", c.known_fraction, "fraction of runs whose length the rule is told");
  visit("reparametrized_fraction", c.reparametrized_fraction,
        "fraction of runs on re-scaled tasks");
  visit("estimators", c.estimators,
        "gradient estimators to mix, NAME=WEIGHT with evolution, "
        "output_evolution, pes and truncated");
  visit("normalize_estimators", c.normalize_estimators, "mix directions instead of gradients");
  visit("seed", c.seed, "of every random draw");
  visit("num_outer_steps", c.num_outer_steps, "outer steps");
  visit("max_minutes", c.max_minutes, "stop after this time; 0: no limit");
  visit("num_workers", c.num_workers, "threads; 0: one per core");
  visit("device", c.device, "where networks are trained: cpu, cuda or cuda:N");
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
  visit("sigma_scales", c.sigma_scales,
        "NAME=FACTOR: times sigma for weights called so; with 0 they stay as they are");
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
  visit("output_window", c.output_window,
        "output_evolution: inner steps differentiated through together");
  visit("output_stride", c.output_stride, "of every so many");
  visit("validate_every", c.validate_every, "outer steps between validations; 0: never");
  visit("validation_tasks", c.validation_tasks, "tasks per validation family");
  visit("validation_length_factor", c.validation_length_factor,
        "length of validation runs as a multiple of the horizon");
  visit("validation_floor", c.validation_floor,
        "fraction of the first loss that counts as zero in a validation");
  visit("worst_weight", c.worst_weight, "weight of the worst validation task beside the mean");
  visit("checkpoint_every", c.checkpoint_every, "outer steps between checkpoints");
}

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
  parse_device(device);
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
  require_at_least(output_window, 1, "output_window");
  require_at_least(output_stride, output_window, "output_stride");
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
    one_of("estimators", entry.name, {"evolution", "output_evolution", "pes", "truncated"});
    require_positive(entry.number, "estimators");
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
          .device = parse_device(config.device),
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

std::string to_text(MetaConfig config) {
  std::string result;
  for (const Field& field : fields_of(config)) result += field.name + " = " + text_of(field) + "\n";
  return result;
}

std::map<std::string, std::string> resume_metadata(MetaConfig config) {
  std::set<std::string> free = {"max_minutes", "num_workers", "device", "checkpoint_every",
                                "finished_options"};
  if (!config.cosine_rate || config.rate_steps > 0) free.insert("num_outer_steps");
  std::map<std::string, std::string> result;
  for (const Field& field : fields_of(config)) {
    if (free.count(field.name) == 0) result[field.name] = text_of(field);
  }
  return result;
}

}  // namespace mnemosyne::meta
