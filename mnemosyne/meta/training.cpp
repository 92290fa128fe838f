#include "mnemosyne/meta/training.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>

#include "mnemosyne/core/error.h"
#include "mnemosyne/io/file.h"
#include "mnemosyne/io/metrics.h"
#include "mnemosyne/io/safetensors.h"
#include "mnemosyne/meta/checkpoint.h"
#include "mnemosyne/meta/steps_ratio.h"
#include "mnemosyne/optim/weights.h"

namespace mnemosyne::meta {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr const char* kRecentLosses = "recent_losses";
constexpr const char *kSteps = "steps", *kData = "data";

std::string checkpoint_path(const std::string& folder) {
  return folder + "/checkpoint.safetensors";
}

class Training {
 public:
  Training(const TrainingOptions& options, const TrainingEvents& events)
      : options_(options),
        events_(events),
        rollout_(options.task, {member()}, options.num_steps, options.seed, options.device),
        last_checkpoint_(std::chrono::steady_clock::now()) {}

  TrainingResult run() {
    TrainingResult result;
    result.first_step = open_folder();
    result.last.step = result.first_step;
    result.last.num_steps = options_.num_steps;
    bool stop = false;
    while (!rollout_.done() && !stop) {
      result.last = step();
      if (events_.on_step) events_.on_step(result.last);
      stop = events_.should_stop && events_.should_stop();
      if (stop || rollout_.done() || checkpoint_due(result.last.step)) save_checkpoint();
    }
    result.finished = rollout_.done();
    if (result.finished) {
      if (!result.last.validated) validate(result.last);
      result.last.loss = recent_losses_.back();
      result.last.smoothed_loss = final_loss(recent_losses_);
      save_weights();
    }
    return result;
  }

 private:
  Member member() const {
    Member member = options_.optimizer.member(options_.num_steps);
    member.options.weight_decay = options_.weight_decay;
    return member;
  }

  // What a checkpoint has to agree in with the options before it may be continued.
  std::map<std::string, std::string> identity() const {
    char rates[96];
    std::snprintf(rates, sizeof rates, "lr %.17g, %s, weight decay %.17g", options_.optimizer.lr,
                  schedule_name(options_.optimizer.schedule),
                  options_.weight_decay.value_or(options_.optimizer.rule->default_weight_decay()));
    return {{"task", options_.task->name()},
            {"optimizer", options_.optimizer.label},
            {"rule", optim::weights_hash(*options_.optimizer.rule)},
            {"rates", rates},
            {"seed", std::to_string(options_.seed)},
            {kData, options_.task->data_fingerprint()}};
  }

  // What files say of a run: its identity, and its length, which may be changed.
  std::map<std::string, std::string> description() const {
    std::map<std::string, std::string> result = identity();
    result[kSteps] = std::to_string(options_.num_steps);
    if (result[kData].empty()) result.erase(kData);
    return result;
  }

  std::string file(const char* name) const { return options_.folder + "/" + name; }

  // Opens the metrics and restores the checkpoint, if any; the steps that were taken before.
  int64_t open_folder() {
    if (options_.folder.empty()) return 0;
    const std::string path = checkpoint_path(options_.folder);
    const bool present = std::filesystem::exists(path);
    if (present && !options_.resume) {
      throw InputError("[out] expected --resume or a folder without a run, got " + options_.folder +
                       ", which holds one");
    }
    if (present) restore(path);
    metrics_ = io::MetricSink::open(options_.folder,
                                    present ? std::optional(rollout_.step_index()) : std::nullopt);
    return rollout_.step_index();
  }

  void restore(const std::string& path) {
    const io::TensorFile checkpoint = load_checkpoint(path, identity());
    const auto taken = find_checked(checkpoint.tensors, "step", at::kLong, {}).item<int64_t>();
    if (taken > options_.num_steps) {
      throw InputError("[steps] expected " + std::to_string(taken) + " or more, which the run in " +
                       options_.folder + " has taken, got " + std::to_string(options_.num_steps));
    }
    rollout_.restore(checkpoint.tensors);
    const at::Tensor& losses = find(checkpoint.tensors, kRecentLosses);
    if (losses.scalar_type() != at::kFloat || losses.dim() != 1) {
      throw InputError("[resume] " + path + ": expected a list of losses in " + kRecentLosses);
    }
    const float* data = losses.const_data_ptr<float>();
    recent_losses_.assign(data, data + losses.numel());
  }

  TrainingReport step() {
    TrainingReport report;
    report.loss = rollout_.step()[0];
    report.step = rollout_.step_index();
    report.num_steps = options_.num_steps;
    if (static_cast<int64_t>(recent_losses_.size()) == kSmoothing) {
      recent_losses_.erase(recent_losses_.begin());
    }
    recent_losses_.push_back(static_cast<float>(report.loss));
    report.smoothed_loss = final_loss(recent_losses_);

    io::Metrics metrics{{"loss", report.loss}};
    const bool due = options_.validate_every > 0 && report.step % options_.validate_every == 0;
    if (due || rollout_.done()) {
      validate(report);
      if (!std::isnan(report.validation_loss)) {
        metrics.emplace_back("validation_loss", report.validation_loss);
      }
      if (!std::isnan(report.validation_accuracy)) {
        metrics.emplace_back("validation_accuracy", report.validation_accuracy);
      }
    }
    metrics_.write(report.step, metrics);
    return report;
  }

  void validate(TrainingReport& report) const {
    const std::vector<float> loss = rollout_.validation_loss();
    const std::vector<float> accuracy = rollout_.validation_accuracy();
    report.validated = true;
    report.validation_loss = loss.empty() ? kNone : loss[0];
    report.validation_accuracy = accuracy.empty() ? kNone : accuracy[0];
  }

  bool checkpoint_due(int64_t step) const {
    if (options_.checkpoint_every > 0 && step % options_.checkpoint_every == 0) return true;
    const std::chrono::duration<double> age = std::chrono::steady_clock::now() - last_checkpoint_;
    return options_.checkpoint_seconds > 0 && age.count() >= options_.checkpoint_seconds;
  }

  void save_checkpoint() {
    if (options_.folder.empty()) return;
    // First the metrics: those of steps after the checkpoint are dropped on resume, missing ones
    // would stay missing.
    metrics_.flush();
    NamedTensors tensors = rollout_.checkpoint();
    at::Tensor losses =
        at::empty({static_cast<int64_t>(recent_losses_.size())}, at::TensorOptions(at::kFloat));
    std::copy(recent_losses_.begin(), recent_losses_.end(), losses.data_ptr<float>());
    tensors.emplace_back(kRecentLosses, losses);
    meta::save_checkpoint(checkpoint_path(options_.folder), tensors, description());
    last_checkpoint_ = std::chrono::steady_clock::now();
  }

  void save_weights() const {
    if (options_.folder.empty()) return;
    const std::vector<std::string> names = options_.task->param_names();
    const std::vector<at::Tensor> params = rollout_.evaluation_params();
    NamedTensors weights;
    for (size_t i = 0; i < params.size(); ++i) {
      weights.emplace_back(names.at(i), params[i].select(0, 0));
    }
    for (auto& buffer : options_.task->buffers()) weights.push_back(std::move(buffer));
    std::map<std::string, std::string> metadata = options_.task->metadata();
    metadata.merge(description());
    io::write_safetensors(file("weights.safetensors"), weights, metadata);
  }

  const TrainingOptions& options_;
  const TrainingEvents& events_;
  Rollout rollout_;
  io::MetricSink metrics_;
  Curve recent_losses_;
  std::chrono::steady_clock::time_point last_checkpoint_;
};

}  // namespace

void TrainingOptions::validate() const {
  const auto at_least = [](double least, const char* option, double value) {
    check_option(value >= least, option, least > 0 ? "1 or more" : "0 or more", value);
  };
  at_least(1, "steps", static_cast<double>(num_steps));
  at_least(0, "validate-every", static_cast<double>(validate_every));
  at_least(0, "checkpoint-every", static_cast<double>(checkpoint_every));
  at_least(0, "checkpoint-seconds", checkpoint_seconds);
  at_least(0, "weight-decay", weight_decay.value_or(0));
}

std::optional<int64_t> steps_of_run(const std::string& folder) {
  const std::string path = checkpoint_path(folder);
  if (!std::filesystem::exists(path)) return {};
  const std::map<std::string, std::string> metadata = io::read_safetensors(path).metadata;
  const auto found = metadata.find(kSteps);
  int64_t steps = 0;
  const std::string text = found == metadata.end() ? "none" : found->second;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), steps);
  if (error != std::errc() || end != text.data() + text.size() || steps < 1) {
    throw InputError("[resume] " + path + ": expected steps in its metadata, got " +
                     io::in_quotes(text));
  }
  return steps;
}

TrainingResult train(const TrainingOptions& options, const TrainingEvents& events) {
  options.validate();
  return Training(options, events).run();
}

}  // namespace mnemosyne::meta
