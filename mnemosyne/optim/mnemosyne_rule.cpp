#include "mnemosyne/optim/mnemosyne_rule.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <utility>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/fields.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/optim/deferred_count.h"
#include "mnemosyne/optim/step_features.h"
#include "mnemosyne/optim/step_guard.h"
#include "mnemosyne/optim/step_outputs.h"

namespace mnemosyne::optim {
namespace {

enum Slot : size_t { kSecondMoment = 2, kSignals = 3, kMemory = 4 };
constexpr char kControllerName[] = "controller";
constexpr double kLargestStepBound = 3.0;
constexpr uint64_t kRoundingSeed = 0x7365636f6e64;

/// Numbers of several networks, one after the other.
at::Tensor joined(const std::vector<at::Tensor>& parts) {
  return parts.size() == 1 ? parts[0] : at::cat(parts);
}

}  // namespace

MnemosyneRule::MnemosyneRule(MnemosyneRuleOptions options)
    : options_(options), base_(options.base) {
  check_option(options.step_bound >= 0.0 && options.step_bound <= kLargestStepBound, "mnemosyne",
               "step_bound in [0, 3]", options.step_bound);
  check_option(options.mixture_bound >= 0.0 && options.mixture_bound <= 1.0, "mnemosyne",
               "mixture_bound in [0, 1]", options.mixture_bound);
  one_of("mnemosyne", options.second_moment, std::vector<std::string>{"float32", kBFloat16},
         "second_moment");
  const auto outputs = static_cast<int64_t>(step_output_names().size());
  const auto features = static_cast<int64_t>(step_feature_names(options.alignment).size());
  controller_ = at::zeros({outputs, features}, at::kFloat);
  if (options.learned && options.attention.enabled) {
    attention_.emplace(options.attention, options.alignment);
  }
}

std::optional<size_t> MnemosyneRule::previous_update() const {
  if (!options_.learned || !options_.alignment) return std::nullopt;
  return has_memory() ? kMemory + 1 : kSignals + 1;
}

void MnemosyneRule::complete(StepList::Inputs& inputs) const {
  inputs.chunk_size = chunk_size();
  inputs.previous_update = previous_update();
  if (!has_compact_second_moment()) return;
  for (size_t i = 0; i < inputs.params.size(); ++i) {
    // By step and shape, not by place: the order of a list, and who is in it, change nothing.
    uint64_t seed = mix_seeds(kRoundingSeed, static_cast<uint64_t>(step_count(inputs.state[i])));
    for (const int64_t size : inputs.params[i].sizes()) {
      seed = mix_seeds(seed, static_cast<uint64_t>(size));
    }
    inputs.base[i].rounding_seed = static_cast<uint32_t>(seed);
  }
}

/// Of a list whose steps have been counted.
std::vector<TensorFacts> MnemosyneRule::facts_of(const State& state, at::TensorList params,
                                                 const StepOptions& options) const {
  std::vector<TensorFacts> facts;
  for (size_t i = 0; i < params.size(); ++i) {
    const int64_t t = step_count(state[i]), rows = matrix_rows(params[i]);
    const ops::StepBase base = base_coefficients(options_.base, options, t, rows > 0);
    facts.push_back({.t = t,
                     .num_steps = options.num_steps,
                     .size = params[i].numel(),
                     .rows = rows,
                     .momentum_weight = 1.0 - std::pow(base.momentum_decay, t - 1)});
  }
  return facts;
}

StateLayout MnemosyneRule::state_layout(const at::Tensor& param) const {
  if (!options_.learned) return base_.state_layout(param);
  StateLayout layout{step_entry(), entry_like("momentum", param),
                     entry_like("second_moment", param),
                     float_entry("signals", {num_signals(options_.alignment)})};
  if (has_compact_second_moment()) layout[kSecondMoment].dtype = at::kBFloat16;
  if (has_memory()) {
    layout.push_back(
        float_entry("memory", {attention_->meta_tokens(param.numel()) * attention_->state_size()}));
  }
  if (previous_update()) {
    layout.push_back(entry_like("previous_update", param));
    layout.back().dtype = at::kBFloat16;
  }
  return layout;
}

StateLayout MnemosyneRule::shared_layout() const {
  if (!has_memory()) return {};
  return {float_entry("network_memory", {1, attention_->state_size()})};
}

std::vector<double> MnemosyneRule::step_sizes(const State& state, at::TensorList params,
                                              const StepOptions& options) const {
  return base_.step_sizes(state, params, options);
}

std::shared_ptr<const AttentionPlan> MnemosyneRule::attention_plan(
    const std::vector<Network>& networks, at::TensorList params, at::Device device) const {
  std::vector<const LearnedAttention*> members;
  for (const Network& network : networks) members.push_back(&*network.rule->attention_);
  return attention_->plan(members, params, device);
}

AttendedOutputs MnemosyneRule::attend(StepList& list, const std::vector<Network>& networks,
                                      const AttentionPlan& plan, const at::Tensor& features,
                                      const at::Tensor& chunks) const {
  const int64_t size = attention_->state_size();
  if (size == 0) {
    at::Tensor none, no_network;
    return (*attention_)(plan, features, chunks, none, no_network);
  }
  std::vector<at::Tensor> held, shared;
  std::vector<int64_t> lengths;
  for (const ParamState& own : list.state()) {
    held.push_back(own[kMemory]);
    lengths.push_back(held.back().size(0));
  }
  for (const Network& network : networks) shared.push_back(network.shared->at(0));
  at::Tensor memory = joined(held).to(features.device()).view({-1, size});
  at::Tensor network_memory = joined(shared).to(features.device());
  const AttendedOutputs outputs = (*attention_)(plan, features, chunks, memory, network_memory);
  const std::vector<at::Tensor> next = memory.reshape({-1}).split_with_sizes(lengths);
  const std::vector<at::Tensor> next_shared = network_memory.split(1);
  if (list.in_place()) {
    at::_foreach_copy_(held, next);
    at::_foreach_copy_(shared, next_shared);
    return outputs;
  }
  for (size_t i = 0; i < next.size(); ++i) {
    list.state()[i][kMemory] = next[i].to(held[i].device());
  }
  for (size_t k = 0; k < networks.size(); ++k) {
    networks[k].shared->at(0) = next_shared[k].to(shared[k].device());
  }
  return outputs;
}

at::Tensor MnemosyneRule::advance_signals(StepList& list, const std::vector<Network>& networks,
                                          const ops::StepSums& sums) {
  State& state = list.state();
  std::vector<at::Tensor> signals;
  std::vector<TensorFacts> facts;
  for (const ParamState& own : state) signals.push_back(own[kSignals]);
  for (const Network& network : networks) {
    facts.insert(facts.end(), network.facts.begin(), network.facts.end());
  }
  at::Tensor x = advance_features(signals, list.in_place(), sums, facts,
                                  static_cast<int64_t>(networks.size()));
  for (size_t i = 0; i < facts.size(); ++i) state[i][kSignals] = signals[i];
  return x;
}

void MnemosyneRule::guard(const std::vector<Network>& networks, const at::Tensor& features,
                          at::Tensor& tensors, at::Tensor& chunks,
                          const AttentionPlan* plan) const {
  const at::Tensor trust = step_trust(features, options_.alignment);
  tensors = tensors * trust.unsqueeze(1);
  if (chunks.defined()) {
    chunks = chunks * plan->geometry.spread(trust).to(chunks.scalar_type());
  }
  DeferredCount* damped = networks.front().damped;
  if (damped != nullptr) damped->add((trust < 1.0).sum());
}

ops::StepCorrection MnemosyneRule::correct(StepList& list,
                                           const std::vector<Network>& networks) const {
  ops::StepSums sums = list.advance(/*with_sums=*/true);
  std::shared_ptr<const AttentionPlan> plan;
  at::Tensor tokens;
  if (attention_) {
    plan = attention_plan(networks, list.params(), sums.grad_squared.device());
    const ops::StepSums of_tensors = sums_of_tensors(sums, plan->geometry);
    tokens = chunk_features(sums, of_tensors, plan->geometry);
    sums = of_tensors;
  }
  const at::Tensor x = advance_signals(list, networks, sums);
  std::vector<at::Tensor> outputs;
  for (const Network& network : networks) {
    const at::Tensor own = x.narrow(0, network.first, network.params.size());
    outputs.push_back(own.matmul(network.rule->controller_.to(x.options()).t()));
  }
  AttendedOutputs attended;
  at::Tensor z = joined(outputs);
  if (attention_) {
    attended = attend(list, networks, *plan, x, tokens);
    z = z + attended.tensors;
  }
  if (options_.guard) guard(networks, x, z, attended.chunks, plan.get());
  if (networks.front().decisions != nullptr) *networks.front().decisions = {x, z};
  ops::StepCorrection correction =
      step_correction(z, {.step = options_.step_bound, .mixture = options_.mixture_bound});
  if (!attention_) return correction;
  correction = of_chunks(correction, plan->geometry);
  if (options_.attention.chunks) {
    correction.step = correction.step *
                      chunk_factor(attended.chunks, plan->geometry, options_.attention.chunk_bound);
  }
  return correction;
}

UpdateResult MnemosyneRule::do_update(at::TensorList grads, const State& state,
                                      at::TensorList params, const StepOptions& options) const {
  if (!options_.learned) return base_.do_update(grads, state, params, options);
  if (params.empty()) return {.updates = {}, .state = state};
  StepList::Inputs inputs = base_.inputs(grads, state, params, options);
  complete(inputs);
  StepList list(StepList::Form::kPure, std::move(inputs));
  const ops::StepCorrection correction =
      correct(list, {{.rule = this,
                      .params = params,
                      .facts = facts_of(list.state(), params, options),
                      .shared = &list.state().shared,
                      .decisions = options.decisions}});
  return {.updates = list.directions(&correction), .state = std::move(list.state())};
}

void MnemosyneRule::step_joined_(const std::vector<MemberStep>& members) const {
  const at::NoGradGuard no_grad;
  StepList::Inputs all;
  for (const MemberStep& member : members) {
    static_cast<const MnemosyneRule*>(member.rule)
        ->base_.join(member.grads, *member.state, member.params, member.options, member.shrink,
                     all);
  }
  complete(all);
  StepList list(StepList::Form::kInPlace, std::move(all));
  std::vector<Network> networks;
  size_t first = 0;
  for (const MemberStep& member : members) {
    const auto* rule = static_cast<const MnemosyneRule*>(member.rule);
    networks.push_back({.rule = rule,
                        .params = member.params,
                        .first = first,
                        .facts = rule->facts_of(*member.state, member.params, member.options),
                        .shared = &member.state->shared,
                        .damped = member.options.damped});
    first += member.params.size();
  }
  const ops::StepCorrection correction = correct(list, networks);
  list.apply(&correction, members.front().options.fallbacks);
}

void MnemosyneRule::do_step_(at::TensorList grads, State& state, at::TensorList params,
                             const StepOptions& options, const std::vector<double>& shrink) const {
  if (!options_.learned) return base_.do_step_(grads, state, params, options, shrink);
  if (!params.empty()) step_joined_({{this, grads, &state, params, options, shrink}});
}

bool MnemosyneRule::steps_with(const UpdateRule& other) const {
  const auto* rule = dynamic_cast<const MnemosyneRule*>(&other);
  return rule != nullptr && options_.learned && rule->options_.learned &&
         rule->options_.step_bound == options_.step_bound &&
         rule->options_.mixture_bound == options_.mixture_bound &&
         rule->options_.guard == options_.guard && rule->options_.alignment == options_.alignment &&
         rule->options_.second_moment == options_.second_moment &&
         rule->options_.attention == options_.attention;
}

void MnemosyneRule::do_step_members_(const std::vector<MemberStep>& members) const {
  const bool joins = options_.learned && !members.front().params.empty();
  if (!joins || !StepList::can_join(members)) return UpdateRule::do_step_members_(members);
  step_joined_(members);
}

NamedTensors MnemosyneRule::weights() const {
  NamedTensors all{{kControllerName, controller_}};
  if (attention_) {
    all.insert(all.end(), attention_->weights().begin(), attention_->weights().end());
  }
  return all;
}

std::shared_ptr<UpdateRule> MnemosyneRule::with_weights(const NamedTensors& weights) const {
  const NamedTensors own = matching(name(), this->weights(), weights);
  auto rule = std::make_shared<MnemosyneRule>(*this);
  rule->controller_ = own[0].second;
  if (attention_) rule->attention_ = attention_->with_weights({own.begin() + 1, own.end()});
  return rule;
}

WeightAxes MnemosyneRule::weight_axes() const {
  WeightAxes axes{{kControllerName, {step_output_names(), step_feature_names(options_.alignment)}}};
  if (attention_) attention_->add_axes(axes);
  return axes;
}

void bind(Fields& visit, MnemosyneRuleOptions& options) {
  bind(visit, options.base);
  visit("learned", options.learned);
  visit("step_bound", options.step_bound);
  visit("mixture_bound", options.mixture_bound);
  visit.later("guard", options.guard);
  bind(visit, options.attention);
  visit.later("alignment", options.alignment);
  visit.later("second_moment", options.second_moment);
}

std::string MnemosyneRule::options_json() const { return write_options(options_); }

std::shared_ptr<UpdateRule> make_mnemosyne_rule(const std::string& options_json) {
  MnemosyneRuleOptions options;
  read_json("mnemosyne", options_json, fields_of(options));
  return std::make_shared<MnemosyneRule>(std::move(options));
}

}  // namespace mnemosyne::optim
