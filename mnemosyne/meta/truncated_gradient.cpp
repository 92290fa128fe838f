#include "mnemosyne/meta/truncated_gradient.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/scalar_tensor.h>

#include <algorithm>
#include <cmath>

#include "mnemosyne/core/error.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/meta/checkpoint.h"
#include "mnemosyne/meta/exchange.h"
#include "mnemosyne/meta/loss_gradients.h"
#include "mnemosyne/meta/parallel.h"
#include "mnemosyne/meta/rollout.h"
#include "mnemosyne/meta/update_trace.h"
#include "mnemosyne/optim/rules.h"

namespace mnemosyne::meta {
namespace {

constexpr uint64_t kExpertStream = 4;

using Tensors = std::vector<at::Tensor>;

/// params - factor updates, without a graph.
Tensors subtracted(const Tensors& params, const Tensors& updates, double factor) {
  Tensors result;
  for (size_t i = 0; i < params.size(); ++i) {
    result.push_back(params[i].sub(updates[i].detach(), factor));
  }
  return result;
}

void detach(Tensors& tensors) {
  for (at::Tensor& tensor : tensors) tensor = tensor.detach();
}

std::string place_prefix(int64_t place) { return "place." + std::to_string(place) + "."; }

}  // namespace

TruncatedGradientEstimator::TruncatedGradientEstimator(RunSampler sampler,
                                                       TruncatedGradientOptions options)
    : sampler_(std::move(sampler)),
      options_(std::move(options)),
      expert_(optim::make_rule("adam")) {
  for (int64_t i = 0; i < options_.num_tasks; ++i) trainees_.push_back({.life = {.place = i}});
}

MetaGradient TruncatedGradientEstimator::estimate(const optim::UpdateRule& rule,
                                                  const OuterStep& step) {
  std::vector<MetaGradient> contributions(trainees_.size());
  ProcessGroup& processes = *step.processes;
  run_parallel(processes.own_items(options_.num_tasks), step.num_workers,
               [&](int64_t i) { contributions[i] = run_window(rule, trainees_[i], step); });
  return combine_contributions(all_contributions(processes, std::move(contributions)),
                               flatten_learned(rule));
}

double TruncatedGradientEstimator::expert_rate(const Run& run) const {
  Random draws(derive_seed(run.seed, {kExpertStream}));
  if (!draws.chance(options_.imitation_fraction)) return 0;
  return options_.expert_rates[draws.below(static_cast<int64_t>(options_.expert_rates.size()))];
}

void TruncatedGradientEstimator::begin_life(Trainee& trainee, const optim::UpdateRule& rule,
                                            const Run& run, at::Device device) const {
  trainee.params = tasks::on_device(run.task->init(run.seed), device);
  trainee.state = optim::init_state(rule, trainee.params);
  trainee.expert_state = optim::init_state(*expert_, trainee.params);
  trainee.step = 0;
}

void TruncatedGradientEstimator::read_restored(Trainee& trainee, const optim::UpdateRule& rule,
                                               const Run& run, at::Device device) const {
  const NamedTensors stored = std::move(trainee.restored);
  trainee.restored.clear();
  begin_life(trainee, rule, run, device);
  trainee.step = find_checked(stored, "step", at::kLong, {}).item<int64_t>();
  if (trainee.step < 1 || trainee.step >= run.num_steps) {
    throw InputError("[checkpoint] expected a step below " + std::to_string(run.num_steps) +
                     ", got " + std::to_string(trainee.step));
  }
  trainee.params = find_alike(stored, "params.", trainee.params);
  trainee.state = find_alike(stored, "state.", trainee.state);
  trainee.expert_state = find_alike(stored, "expert.", trainee.expert_state);
}

MetaGradient TruncatedGradientEstimator::run_window(const optim::UpdateRule& rule, Trainee& trainee,
                                                    const OuterStep& step) const {
  const at::AutoGradMode with_grad(true);
  Life& life = trainee.life;
  const bool fresh = !life.active;
  if (fresh) life.horizon = step.horizon;
  const Run run = life_run(sampler_, life, step.seed, options_.window);
  if (fresh) begin_life(trainee, rule, run, step.device);
  if (!trainee.restored.empty()) read_restored(trainee, rule, run, step.device);
  const NamedTensors weights = rule.weights();
  const at::Tensor theta = flatten(weights).detach().requires_grad_(true);
  const auto learned = rule.with_weights(unflatten(theta, weights));
  const double expert_rate = this->expert_rate(run);
  const int64_t window = std::min(options_.window, run.num_steps - trainee.step);

  const auto stream = run.task->train_stream(run.seed);
  UpdateTrace trace;
  std::vector<Sample> samples;  // at x_1 ... x_K
  Sample now = sample_gradients(*run.task, *stream, trainee.params, trainee.step);
  if (fresh) life.first_loss = now.loss;
  bool finite = std::isfinite(now.loss);
  for (int64_t s = 0; s < window && finite; ++s) {
    optim::UpdateResult result =
        learned->update(now.grads, trainee.state, trainee.params, run.options());
    trainee.state = std::move(result.state);
    if (expert_rate > 0) {
      const double factor = schedule_factor(Schedule::kCosine, trainee.step, run.num_steps);
      const Tensors expert = expert_updates(trainee, now.grads, expert_rate);
      trace.add_imitation(result.updates, expert, factor, window);
      trainee.params = subtracted(trainee.params, expert, factor);
    } else {
      trainee.params = subtracted(trainee.params, result.updates, 1.0);
    }
    trace.updates.push_back(std::move(result.updates));
    ++trainee.step;
    now = sample_gradients(*run.task, *stream, trainee.params, trainee.step);
    finite = std::isfinite(now.loss);
    samples.push_back(now);
  }

  MetaGradient contribution{.inner_steps = static_cast<int64_t>(trace.updates.size())};
  if (finite) {
    if (expert_rate == 0) trace.set_losses(samples, life.first_loss, options_.fitness);
    contribution.gradient = trace.pull_back(theta);
    // An imitation's loss is in other units and would only blur the report.
    contribution.meta_loss = expert_rate > 0 ? std::nan("") : trace.objective;
    const std::string name = (expert_rate > 0 ? "imitation." : "") + run.task->name();
    contribution.runs.push_back({name, run.num_steps, trace.objective});
  } else {
    contribution.skipped = 1;
  }
  finish_window(trainee, finite && trainee.step < run.num_steps);
  return contribution;
}

std::vector<at::Tensor> TruncatedGradientEstimator::expert_updates(
    Trainee& trainee, const std::vector<at::Tensor>& grads, double rate) const {
  const at::NoGradGuard no_grad;
  optim::UpdateResult result =
      expert_->update(grads, trainee.expert_state, trainee.params, {.lr = rate});
  trainee.expert_state = std::move(result.state);
  return std::move(result.updates);
}

void TruncatedGradientEstimator::finish_window(Trainee& trainee, bool goes_on) const {
  if (goes_on) {
    trainee.life.active = true;
    for (optim::ParamState& tensors : trainee.state) detach(tensors);
    detach(trainee.state.shared);
  } else {
    trainee = {.life = {.place = trainee.life.place, .number = trainee.life.number + 1}};
  }
}

NamedTensors TruncatedGradientEstimator::checkpoint(ProcessGroup& processes) const {
  std::vector<NamedTensors> places(trainees_.size());
  for (const int64_t i : processes.own_items(options_.num_tasks)) {
    const Trainee& trainee = trainees_[i];
    NamedTensors& tensors = places[i];
    const std::string prefix = place_prefix(trainee.life.place);
    append_life(tensors, prefix, trainee.life);
    append(tensors, prefix, trainee.restored);
    if (!trainee.life.active || !trainee.restored.empty()) continue;
    tensors.emplace_back(prefix + "step", at::scalar_tensor(trainee.step, at::kLong));
    append(tensors, prefix + "params.", trainee.params);
    append(tensors, prefix + "state.", trainee.state);
    append(tensors, prefix + "expert.", trainee.expert_state);
  }
  return gather_tensors(processes, places);
}

void TruncatedGradientEstimator::restore(const NamedTensors& tensors) {
  std::vector<Trainee> restored;
  for (int64_t i = 0; i < options_.num_tasks; ++i) {
    const NamedTensors own = select(tensors, place_prefix(i));
    Trainee& trainee = restored.emplace_back(Trainee{.life = find_life(own, "", i)});
    if (!trainee.life.active) continue;
    find_checked(own, "step", at::kLong, {});
    for (const auto& [name, tensor] : own) {
      if (name != "life" && name != "first_loss") trainee.restored.emplace_back(name, tensor);
    }
  }
  trainees_ = std::move(restored);
}

}  // namespace mnemosyne::meta
