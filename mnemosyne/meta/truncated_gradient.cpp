#include "mnemosyne/meta/truncated_gradient.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>

#include "mnemosyne/core/error.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/meta/checkpoint.h"
#include "mnemosyne/meta/parallel.h"
#include "mnemosyne/optim/rules.h"

namespace mnemosyne::meta {
namespace {

constexpr uint64_t kExpertStream = 4;

using Tensors = std::vector<at::Tensor>;

/// A network's loss and gradients at one step, without a graph.
struct Sample {
  double loss = 0;
  Tensors grads = {};

  bool finite() const {
    double total = loss;
    for (const at::Tensor& grad : grads) total += grad.abs().sum().item<double>();
    return std::isfinite(total);
  }
};

Sample sample_gradients(const tasks::Task& task, tasks::BatchStream& stream, const Tensors& params,
                        int64_t step) {
  Tensors stacked;
  for (const at::Tensor& param : params) {
    stacked.push_back(param.detach().unsqueeze(0).requires_grad_(true));
  }
  const at::Tensor loss = task.loss(stacked, stream.at(step)).sum();
  const Tensors grads =
      torch::autograd::grad({loss}, stacked, {}, std::nullopt, false, /*allow_unused=*/true);
  Sample sample{.loss = loss.item<double>()};
  for (size_t i = 0; i < params.size(); ++i) {
    sample.grads.push_back(grads[i].defined() ? grads[i].squeeze(0).contiguous()
                                              : at::zeros_like(params[i]));
  }
  return sample;
}

Tensors detached(const Tensors& tensors) {
  Tensors result;
  for (const at::Tensor& tensor : tensors) result.push_back(tensor.detach());
  return result;
}

/// params - factor updates, without a graph.
Tensors subtracted(const Tensors& params, const Tensors& updates, double factor) {
  Tensors result;
  for (size_t i = 0; i < params.size(); ++i) {
    result.push_back(params[i].sub(updates[i].detach(), factor));
  }
  return result;
}

double cosine_factor(int64_t step, int64_t num_steps) {
  const double progress = static_cast<double>(step) / static_cast<double>(num_steps);
  return 0.5 * (1 + std::cos(std::numbers::pi * progress));
}

/// The updates of a window, still attached to the weights, and dJ/du of each.
struct Trace {
  std::vector<Tensors> updates;
  std::vector<Tensors> cotangents;
  double objective = 0;
};

/// dJ/du_s = - sum_{t>s} w_t g_t for losses that follow the updates: samples[s] is at x_{s+1}.
void set_loss_cotangents(Trace& trace, const std::vector<Sample>& samples, double first_loss,
                         const FitnessOptions& options) {
  const auto K = static_cast<double>(samples.size());
  Tensors later;  // sum over t > s so far
  for (const at::Tensor& grad : samples.front().grads) later.push_back(at::zeros_like(grad));
  trace.cotangents.resize(samples.size());
  for (size_t s = samples.size(); s-- > 0;) {
    const double w = 1 / (K * (samples[s].loss + options.loss_floor * first_loss));
    trace.objective += log_loss_ratio(samples[s].loss, first_loss, options) / K;
    for (size_t i = 0; i < later.size(); ++i) later[i] = later[i].sub(samples[s].grads[i], w);
    trace.cotangents[s] = later;
  }
}

/// Gradient of 1/2 mean (u - f e)^2 / mean e^2, averaged over the tensors and the window's K steps,
/// for an expert's update e at its full rate and the schedule's factor f. Over (f e)^2 the last
/// steps of a schedule that falls to zero would outweigh all others.
void add_imitation(Trace& trace, const Tensors& updates, const Tensors& expert, double factor,
                   int64_t window) {
  Tensors& cotangents = trace.cotangents.emplace_back();
  for (size_t i = 0; i < updates.size(); ++i) {
    const at::Tensor difference = updates[i].detach().sub(expert[i], factor);
    const double square = expert[i].square().mean().item<double>();
    const double share = 1 / static_cast<double>(updates.size() * static_cast<size_t>(window));
    const double scale = square > 0 ? share / square : 0;
    trace.objective += 0.5 * scale * difference.square().mean().item<double>();
    cotangents.push_back(difference.mul(scale / static_cast<double>(difference.numel())));
  }
}

/// Sum_s <u_s, dJ/du_s> differentiated with respect to `theta` [N].
at::Tensor pull_back(const Trace& trace, const at::Tensor& theta) {
  Tensors outputs, cotangents;
  for (size_t s = 0; s < trace.updates.size(); ++s) {
    for (size_t i = 0; i < trace.updates[s].size(); ++i) {
      if (!trace.updates[s][i].requires_grad()) continue;
      outputs.push_back(trace.updates[s][i]);
      cotangents.push_back(trace.cotangents[s][i].to(outputs.back().scalar_type()));
    }
  }
  if (outputs.empty()) return at::zeros_like(theta);
  const Tensors grads =
      torch::autograd::grad(outputs, {theta}, cotangents, std::nullopt, false, true);
  return grads[0].defined() ? grads[0] : at::zeros_like(theta);
}

void append_tensors(NamedTensors& tensors, const std::string& prefix, const Tensors& list) {
  for (size_t i = 0; i < list.size(); ++i) {
    tensors.emplace_back(prefix + std::to_string(i), list[i].clone());
  }
}

void append_state(NamedTensors& tensors, const std::string& prefix, const optim::State& state) {
  for (size_t i = 0; i < state.size(); ++i) {
    append_tensors(tensors, prefix + std::to_string(i) + ".", state[i]);
  }
}

Tensors find_tensors(const NamedTensors& tensors, const std::string& prefix) {
  Tensors result;
  while (contains(tensors, prefix + std::to_string(result.size()))) {
    result.push_back(find(tensors, prefix + std::to_string(result.size())).clone());
  }
  return result;
}

optim::State find_state(const NamedTensors& tensors, const std::string& prefix) {
  optim::State state;
  while (true) {
    Tensors next = find_tensors(tensors, prefix + std::to_string(state.size()) + ".");
    if (next.empty()) return state;
    state.push_back(std::move(next));
  }
}

/// InputError unless two lists of tensors have the same shapes and dtypes: kernels trust both.
void require_alike(const Tensors& restored, const Tensors& expected) {
  bool alike = restored.size() == expected.size();
  for (size_t i = 0; alike && i < expected.size(); ++i) {
    alike = restored[i].sizes() == expected[i].sizes() &&
            restored[i].scalar_type() == expected[i].scalar_type();
  }
  if (!alike)
    throw InputError("[checkpoint] expected tensors of the task and optimizer at hand, got others");
}

void require_alike(const optim::State& restored, const optim::State& expected) {
  if (restored.size() != expected.size()) {
    throw InputError("[checkpoint] expected states of " + std::to_string(expected.size()) +
                     " parameters, got " + std::to_string(restored.size()));
  }
  for (size_t i = 0; i < expected.size(); ++i) require_alike(restored[i], expected[i]);
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
  run_parallel(options_.num_tasks, step.num_workers,
               [&](int64_t i) { contributions[i] = run_window(rule, trainees_[i], step); });
  return combine_contributions(contributions, flatten_learned(rule));
}

double TruncatedGradientEstimator::expert_rate(const Run& run) const {
  Random draws(derive_seed(run.seed, {kExpertStream}));
  if (!draws.chance(options_.imitation_fraction)) return 0;
  return options_.expert_rates[draws.below(static_cast<int64_t>(options_.expert_rates.size()))];
}

void TruncatedGradientEstimator::begin_life(Trainee& trainee, const optim::UpdateRule& rule,
                                            const Run& run) const {
  trainee.params = run.task->init(run.seed);
  trainee.state = optim::init_state(rule, trainee.params);
  trainee.expert_state = optim::init_state(*expert_, trainee.params);
  trainee.step = 0;
}

void TruncatedGradientEstimator::check_restored(Trainee& trainee, const optim::UpdateRule& rule,
                                                const Run& run) const {
  Trainee fresh;
  begin_life(fresh, rule, run);
  require_alike(trainee.params, fresh.params);
  require_alike(trainee.state, fresh.state);
  require_alike(trainee.expert_state, fresh.expert_state);
  if (trainee.step < 1 || trainee.step >= run.num_steps) {
    throw InputError("[checkpoint] expected a step below " + std::to_string(run.num_steps) +
                     ", got " + std::to_string(trainee.step));
  }
  trainee.restored = false;
}

MetaGradient TruncatedGradientEstimator::run_window(const optim::UpdateRule& rule, Trainee& trainee,
                                                    const OuterStep& step) const {
  const at::AutoGradMode with_grad(true);
  Life& life = trainee.life;
  const bool fresh = !life.active;
  if (fresh) life.horizon = step.horizon;
  const Run run = life_run(sampler_, life, step.seed, options_.window);
  if (fresh) begin_life(trainee, rule, run);
  if (trainee.restored) check_restored(trainee, rule, run);
  const NamedTensors weights = rule.weights();
  const at::Tensor theta = flatten(weights).detach().requires_grad_(true);
  const auto learned = rule.with_weights(unflatten(theta, weights));
  const double expert_rate = this->expert_rate(run);
  const int64_t window = std::min(options_.window, run.num_steps - trainee.step);

  const auto stream = run.task->train_stream(run.seed);
  Trace trace;
  std::vector<Sample> samples;  // at x_1 ... x_K
  Sample now = sample_gradients(*run.task, *stream, trainee.params, trainee.step);
  if (fresh) life.first_loss = now.loss;
  bool finite = now.finite();
  for (int64_t s = 0; s < window && finite; ++s) {
    optim::UpdateResult result =
        learned->update(now.grads, trainee.state, trainee.params, run.options());
    trainee.state = std::move(result.state);
    if (expert_rate > 0) {
      const double factor = cosine_factor(trainee.step, run.num_steps);
      const Tensors expert = expert_updates(trainee, now.grads, expert_rate);
      add_imitation(trace, result.updates, expert, factor, window);
      trainee.params = subtracted(trainee.params, expert, factor);
    } else {
      trainee.params = subtracted(trainee.params, result.updates, 1.0);
    }
    trace.updates.push_back(std::move(result.updates));
    ++trainee.step;
    now = sample_gradients(*run.task, *stream, trainee.params, trainee.step);
    finite = now.finite();
    samples.push_back(now);
  }

  MetaGradient contribution{.inner_steps = static_cast<int64_t>(trace.updates.size())};
  if (finite) {
    if (expert_rate == 0) set_loss_cotangents(trace, samples, life.first_loss, options_.fitness);
    contribution.gradient = pull_back(trace, theta);
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
    for (optim::ParamState& tensors : trainee.state) tensors = detached(tensors);
  } else {
    trainee = {.life = {.place = trainee.life.place, .number = trainee.life.number + 1}};
  }
}

NamedTensors TruncatedGradientEstimator::checkpoint() const {
  NamedTensors tensors;
  for (const Trainee& trainee : trainees_) {
    const std::string prefix = place_prefix(trainee.life.place);
    append_life(tensors, prefix, trainee.life);
    if (!trainee.life.active) continue;
    tensors.emplace_back(prefix + "step", at::scalar_tensor(trainee.step, at::kLong));
    append_tensors(tensors, prefix + "params.", trainee.params);
    append_state(tensors, prefix + "state.", trainee.state);
    append_state(tensors, prefix + "expert.", trainee.expert_state);
  }
  return tensors;
}

void TruncatedGradientEstimator::restore(const NamedTensors& tensors) {
  std::vector<Trainee> restored;
  for (int64_t i = 0; i < options_.num_tasks; ++i) {
    const NamedTensors own = select(tensors, place_prefix(i));
    Trainee& trainee = restored.emplace_back(Trainee{.life = find_life(own, "", i)});
    if (!trainee.life.active) continue;
    trainee.step = find_checked(own, "step", at::kLong, {}).item<int64_t>();
    trainee.params = find_tensors(own, "params.");
    trainee.state = find_state(own, "state.");
    trainee.expert_state = find_state(own, "expert.");
    trainee.restored = true;
  }
  trainees_ = std::move(restored);
}

}  // namespace mnemosyne::meta
