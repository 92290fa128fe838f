#include "mnemosyne/meta/trainer.h"

#include <ATen/ops/tensor.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>
#include <thread>

#include "mnemosyne/core/error.h"
#include "mnemosyne/meta/checkpoint.h"
#include "mnemosyne/meta/exchange.h"

namespace mnemosyne::meta {
namespace {

constexpr double kLastRate = 0.1;  // Of the cosine, as a fraction of the first.

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

TrainerOptions resolved(TrainerOptions options) {
  if (options.num_workers <= 0) {
    options.num_workers = std::max<int64_t>(1, std::thread::hardware_concurrency());
  }
  return options;
}

}  // namespace

Trainer::Trainer(std::shared_ptr<const optim::UpdateRule> rule,
                 std::unique_ptr<GradientEstimator> estimator, Validator validator,
                 TrainerOptions options)
    : rule_(std::move(rule)),
      estimator_(std::move(estimator)),
      validator_(std::move(validator)),
      options_(resolved(std::move(options))),
      outer_(flatten_learned(*rule_), options_.outer),
      horizon_(options_.horizon) {}

std::shared_ptr<const optim::UpdateRule> Trainer::with(const at::Tensor& flat) const {
  return rule_->with_weights(unflatten(flat.clone(), rule_->weights()));
}

double Trainer::rate_factor() const {
  if (!options_.cosine_rate) return 1.0;
  const int64_t steps = options_.rate_steps > 0 ? options_.rate_steps : options_.num_outer_steps;
  const double progress =
      std::min(1.0, static_cast<double>(outer_step_) / static_cast<double>(steps));
  return kLastRate + (1 - kLastRate) * 0.5 * (1 + std::cos(std::numbers::pi * progress));
}

bool Trainer::done() const {
  return outer_step_ >= options_.num_outer_steps ||
         (options_.max_minutes > 0 && elapsed_seconds_ >= 60 * options_.max_minutes);
}

// Processors of another kind round differently: ranks would drift apart.
void Trainer::take_outer_state_of_root() {
  if (options_.processes->size() == 1) return;
  outer_.restore(broadcast_tensors(*options_.processes, outer_.checkpoint()));
}

OuterReport Trainer::step() {
  const Stopwatch watch;
  OuterReport report{.num_outer_steps = options_.num_outer_steps,
                     .horizon = horizon_.current(),
                     .learning_rate = rate_factor() * options_.outer.learning_rate};
  take_outer_state_of_root();
  const std::shared_ptr<const optim::UpdateRule> current = with(outer_.weights());
  MetaGradient estimate =
      estimator_->estimate(*current, {outer_step_, options_.seed, horizon_.current(),
                                      options_.num_workers, options_.device, options_.processes});
  skipped_ += estimate.skipped;
  inner_steps_ += estimate.inner_steps;
  // A step without any finite task would only move the weights along old momentum.
  if (estimate.used > 0) {
    report.gradient_norm = outer_.step(estimate.gradient, rate_factor());
  }
  ++outer_step_;
  horizon_.outer_step_done();
  report.step = outer_step_;
  report.meta_loss = estimate.meta_loss;
  report.skipped = skipped_;
  report.inner_steps = inner_steps_;
  report.runs = std::move(estimate.runs);
  report.seconds = watch.seconds();
  elapsed_seconds_ += report.seconds;
  report.elapsed_seconds = elapsed_seconds_;
  return report;
}

ValidationReport Trainer::validate() {
  const Stopwatch watch;
  const at::Tensor candidate = outer_.average();
  const at::Tensor best = best_.defined() ? best_ : outer_.initial();
  std::vector<ValidationScore> scores =
      validator_.compare(with(outer_.initial()), {with(candidate), with(best)}, horizon_.current(),
                         options_.num_workers, options_.device, options_.processes);
  ValidationReport report{.step = outer_step_, .horizon = horizon_.current()};
  report.candidate = std::move(scores[0]);
  report.best = std::move(scores[1]);
  // The initial weights have score 0: what does not beat them is not kept.
  report.improved = report.candidate.score < std::min(report.best.score, 0.0);
  const at::Tensor kept = report.best.score <= 0.0 ? best : outer_.initial();
  best_ = report.improved ? candidate.clone() : kept;
  horizon_.validated(report.improved);
  elapsed_seconds_ += watch.seconds();
  return report;
}

void Trainer::run(const TrainerEvents& events) {
  const bool keep = !options_.checkpoint_path.empty();
  bool stop = done();
  while (!stop) {
    const OuterReport report = step();
    if (events.on_step) events.on_step(report);
    // Clocks and signals are a rank's own, the end is that of all.
    stop = options_.processes->any(done() || (events.should_stop && events.should_stop()));
    if (options_.validate_every > 0 && outer_step_ % options_.validate_every == 0) {
      const ValidationReport validation = validate();
      if (events.on_validation) events.on_validation(validation);
    }
    const bool due = options_.checkpoint_every > 0 && outer_step_ % options_.checkpoint_every == 0;
    if (keep && (stop || due)) save(options_.checkpoint_path);
  }
}

NamedTensors Trainer::last_weights() const {
  return unflatten(outer_.weights().clone(), rule_->weights());
}

NamedTensors Trainer::average_weights() const {
  return unflatten(outer_.average().clone(), rule_->weights());
}

NamedTensors Trainer::best_weights() const {
  return best_.defined() ? unflatten(best_.clone(), rule_->weights()) : average_weights();
}

NamedTensors Trainer::checkpoint() const {
  NamedTensors tensors;
  append(tensors, "outer.", outer_.checkpoint());
  append(tensors, "horizon.", horizon_.checkpoint());
  append(tensors, "estimator.", estimator_->checkpoint(*options_.processes));
  const std::vector<int64_t> counters{outer_step_, skipped_, inner_steps_};
  tensors.emplace_back("counters", at::tensor(counters, at::kLong));
  tensors.emplace_back("elapsed_seconds", at::tensor({elapsed_seconds_}, at::kDouble));
  if (best_.defined()) tensors.emplace_back("best", best_.clone());
  return tensors;
}

void Trainer::restore(const NamedTensors& tensors) {
  const at::Tensor counters = find_checked(tensors, "counters", at::kLong, {3});
  outer_.restore(select(tensors, "outer."));
  horizon_.restore(select(tensors, "horizon."));
  estimator_->restore(select(tensors, "estimator."));
  outer_step_ = counters[0].item<int64_t>();
  skipped_ = counters[1].item<int64_t>();
  inner_steps_ = counters[2].item<int64_t>();
  elapsed_seconds_ = find_checked(tensors, "elapsed_seconds", at::kDouble, {1}).item<double>();
  const at::Tensor& like = outer_.weights();
  best_ = contains(tensors, "best")
              ? find_checked(tensors, "best", like.scalar_type(), like.sizes()).clone()
              : at::Tensor();
}

void Trainer::save(const std::string& path) const {
  const NamedTensors tensors = checkpoint();
  if (options_.processes->is_root()) save_checkpoint(path, tensors, metadata_);
}

void Trainer::load(const std::string& path) {
  ProcessGroup& processes = *options_.processes;
  NamedTensors tensors;
  if (processes.is_root()) tensors = load_checkpoint(path, metadata_).tensors;
  restore(broadcast_tensors(processes, tensors));
}

}  // namespace mnemosyne::meta
