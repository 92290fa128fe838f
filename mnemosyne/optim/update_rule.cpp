#include "mnemosyne/optim/update_rule.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <cmath>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/ops/clean_gradients.h"
#include "mnemosyne/ops/without_kernels.h"
#include "mnemosyne/optim/deferred_count.h"
#include "mnemosyne/optim/fallback.h"

namespace mnemosyne::optim {
namespace {

[[noreturn]] void refuse_param(const UpdateRule& rule, const std::string& expected, size_t index,
                               const std::string& got) {
  refuse(rule.name(), expected + " for parameter " + std::to_string(index), got);
}

std::string describe(const at::Tensor& tensor) {
  return c10::str(tensor.layout() == at::kStrided ? "dense " : "not dense ", tensor.scalar_type(),
                  " ", tensor.sizes(), " on ", tensor.device());
}

// update + shrink param, with the factors of the options that are tensors.
at::Tensor decayed(const at::Tensor& update, const at::Tensor& param, double shrink,
                   const StepOptions& options) {
  if (shrink == 0.0) return update;
  at::Tensor share = param.to(update.scalar_type());
  for (const at::Tensor& factor : {options.lr_factor, options.weight_decay_factor}) {
    if (factor.defined()) share = share * factor.to(update.options());
  }
  return at::add(update, share, shrink);
}

}  // namespace

std::vector<std::string> UpdateRule::state_names() const {
  std::vector<std::string> names;
  for (const StateEntry& entry : state_layout(at::zeros({}, at::TensorOptions(at::kFloat)))) {
    names.push_back(entry.name);
  }
  return names;
}

ParamState UpdateRule::init(const at::Tensor& param) const {
  return zero_state(state_layout(param), param);
}

UpdateResult UpdateRule::update(at::TensorList grads, const State& state, at::TensorList params,
                                const StepOptions& given) const {
  State placed = state;
  const StepOptions options = checked(grads, placed, params, given);
  UpdateResult result = do_update(grads, placed, params, options);
  const std::vector<double> shrink = this->shrink(placed, params, options);
  for (size_t i = 0; i < params.size(); ++i) {
    result.updates[i] =
        decayed(scaled(result.updates[i], options), params[i].detach(), shrink[i], options);
  }
  return result;
}

void UpdateRule::step_(at::TensorList grads, State& state, at::TensorList params,
                       const StepOptions& given) const {
  const StepOptions options = checked(grads, state, params, given);
  do_step_members_({{this, grads, &state, params, options, shrink(state, params, options)}});
}

void UpdateRule::step_members_(std::vector<MemberStep>& members) {
  if (members.empty()) return;
  for (MemberStep& member : members) {
    const UpdateRule& rule = *member.rule;
    StepOptions& options = member.options;
    if (!options.weight_decay) options.weight_decay = rule.default_weight_decay();
    check_step_options(rule, options, rule.name());
    member.shrink = rule.shrink(*member.state, member.params, options);
  }
  members.front().rule->do_step_members_(members);
}

void UpdateRule::do_step_members_(const std::vector<MemberStep>& members) const {
  for (const MemberStep& member : members) {
    const UpdateRule& rule = *member.rule;
    const StepOptions& options = member.options;
    const bool factors = options.lr_factor.defined() || options.weight_decay_factor.defined();
    if (factors && !rule.steps_with_factors()) {
      rule.UpdateRule::do_step_(member.grads, *member.state, member.params, options, member.shrink);
    } else {
      rule.do_step_(member.grads, *member.state, member.params, options, member.shrink);
    }
  }
}

std::vector<double> UpdateRule::step_sizes(const State&, at::TensorList params,
                                           const StepOptions& options) const {
  return std::vector<double>(params.size(), options.lr);
}

void UpdateRule::do_step_(at::TensorList grads, State& state, at::TensorList params,
                          const StepOptions& options, const std::vector<double>& shrink) const {
  const at::NoGradGuard no_grad;
  UpdateResult result = do_update(grads, state, params, options);
  for (size_t i = 0; i < params.size(); ++i) {
    move_(params[i], result.updates[i], shrink[i], grads[i], result.state[i], options);
  }
  state = std::move(result.state);
}

at::Tensor UpdateRule::fallback_update(const at::Tensor&, const ParamState&,
                                       const at::Tensor& param, const StepOptions&) const {
  return at::zeros_like(param, param.options().dtype(compute_dtype(param)));
}

void UpdateRule::move_(const at::Tensor& param, const at::Tensor& update, double shrink,
                       const at::Tensor& grad, ParamState& state,
                       const StepOptions& options) const {
  const auto fallback = [&] {
    if (param.is_cpu()) repair_state(state, init(param));
    const at::Tensor other = fallback_update(grad, state, param, options);
    return decayed(scaled(other, options), param, shrink, options);
  };
  subtract_finite_(param, decayed(scaled(update, options), param, shrink, options), fallback,
                   options.fallbacks);
}

at::Tensor UpdateRule::scaled(const at::Tensor& update, const StepOptions& options) const {
  if (!is_linear_in_lr() || !options.lr_factor.defined()) return update;
  return update * options.lr_factor.to(update.options());
}

std::vector<double> UpdateRule::shrink(const State& state, at::TensorList params,
                                       const StepOptions& options) const {
  if (*options.weight_decay == 0.0 || decays_itself()) return std::vector<double>(params.size());
  std::vector<double> shares = step_sizes(state, params, options);
  for (double& share : shares) share *= *options.weight_decay;
  return shares;
}

StepOptions UpdateRule::checked(at::TensorList grads, State& state, at::TensorList params,
                                StepOptions options) const {
  if (!options.weight_decay) options.weight_decay = default_weight_decay();
  check_step_options(*this, options, name());
  if (grads.size() != params.size() || state.size() != params.size()) {
    throw InputError("[" + name() + "] expected a gradient and a state for each of " +
                     std::to_string(params.size()) + " parameters, got " +
                     std::to_string(grads.size()) + " and " + std::to_string(state.size()));
  }
  adopt(state, params);
  for (size_t i = 0; i < params.size(); ++i) {
    const at::Tensor &param = params[i], &grad = grads[i];
    if (!grad.defined() || grad.layout() != at::kStrided || !grad.is_floating_point() ||
        grad.sizes() != param.sizes() || grad.device() != param.device()) {
      refuse_param(*this,
                   c10::str("a dense gradient of shape ", param.sizes(), " on ", param.device()), i,
                   grad.defined() ? describe(grad) : "none");
    }
  }
  return options;
}

void UpdateRule::check_shared(State& state, at::TensorList params) const {
  const StateLayout layout = shared_layout();
  if (layout.empty() && state.shared.empty()) return;
  const at::Tensor like = params.empty() ? at::zeros({}) : params[0];
  if (state.shared.empty()) state.shared = zero_state(layout, like);
  check_state(layout, state.shared, name(), "the list");
  place_state(layout, state.shared, like);
}

void UpdateRule::adopt(State& state, at::TensorList params) const {
  if (state.size() != params.size()) {
    throw InputError("[" + name() + "] expected a state for each of " +
                     std::to_string(params.size()) + " parameters, got " +
                     std::to_string(state.size()));
  }
  for (size_t i = 0; i < params.size(); ++i) {
    const at::Tensor& param = params[i];
    if (!param.defined() || param.layout() != at::kStrided || !param.is_floating_point()) {
      refuse_param(*this, "a dense floating-point tensor", i,
                   param.defined() ? c10::str(param.scalar_type(), " ", param.layout()) : "none");
    }
    const StateLayout layout = state_layout(param);
    check_state(layout, state[i], name(), "parameter " + std::to_string(i));
    place_state(layout, state[i], param);
  }
  check_shared(state, params);
}

void check_step_options(const UpdateRule& rule, const StepOptions& options,
                        const std::string& where) {
  check_option(std::isfinite(options.lr), where, "a finite lr", options.lr);
  const double decay = options.weight_decay.value_or(0.0);
  check_option(decay >= 0.0 && std::isfinite(decay), where, "weight_decay of at least 0", decay);
  const int64_t num_steps = options.num_steps.value_or(1);
  check_option(num_steps >= 1, where, "num_steps of at least 1", static_cast<double>(num_steps));
  if (!options.momentum) return;
  const double momentum = *options.momentum;
  check_option(rule.default_momentum().has_value(), where,
               "no momentum, which " + rule.name() + " does not have", momentum);
  check_option(momentum >= 0.0 && momentum < 1.0, where, "momentum in [0, 1)", momentum);
}

std::vector<at::Tensor> UpdateRule::evaluation_params(const State&, at::TensorList params) const {
  return params.vec();
}

std::shared_ptr<UpdateRule> UpdateRule::with_weights(const NamedTensors&) const {
  throw InputError("[" + name() + "] expected a learned optimizer, got one without weights");
}

State init_state(const UpdateRule& rule, at::TensorList params) {
  State state;
  state.reserve(params.size());
  for (const at::Tensor& param : params) state.push_back(rule.init(param));
  if (!params.empty()) state.shared = zero_state(rule.shared_layout(), params[0]);
  return state;
}

void clean_gradients(std::vector<at::Tensor>& grads, DeferredCount& nonfinite) {
  const at::NoGradGuard no_grad;
  std::vector<size_t> left;  // but for those of which a look at the numbers tells that all are good
  for (size_t i = 0; i < grads.size(); ++i) {
    const bool host = grads[i].is_cpu() && !ops::WithoutKernels::active();
    if (!host || !ops::is_clean(grads[i])) left.push_back(i);
  }
  while (!left.empty()) {
    const at::Device device = grads[left.front()].device();
    const auto rest = std::stable_partition(left.begin(), left.end(),
                                            [&](size_t i) { return grads[i].device() == device; });
    std::vector<at::Tensor> own;
    for (auto i = left.begin(); i != rest; ++i) own.push_back(grads[*i]);
    nonfinite.add(ops::clean_gradients(own));
    for (size_t k = 0; k < own.size(); ++k) grads[left[k]] = own[k];
    left.erase(left.begin(), rest);
  }
}

}  // namespace mnemosyne::optim
