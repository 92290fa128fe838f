#include "mnemosyne/optim/update_rule.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/where.h>
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

[[noreturn]] void refuse(const UpdateRule& rule, const std::string& expected, size_t index,
                         const std::string& got) {
  throw InputError("[" + rule.name() + "] expected " + expected + " for parameter " +
                   std::to_string(index) + ", got " + got);
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

at::Tensor scaled(const at::Tensor& update, const StepOptions& options) {
  return options.lr_factor.defined() ? update * options.lr_factor.to(update.options()) : update;
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
    if (is_linear_in_lr()) result.updates[i] = scaled(result.updates[i], options);
    result.updates[i] = decayed(result.updates[i], params[i].detach(), shrink[i], options);
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
    const at::Tensor update =
        is_linear_in_lr() ? scaled(result.updates[i], options) : result.updates[i];
    move_(params[i], update, shrink[i], grads[i], result.state[i], options);
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
    at::Tensor other = fallback_update(grad, state, param, options);
    if (is_linear_in_lr()) other = scaled(other, options);
    return decayed(other, param, shrink, options);
  };
  subtract_finite_(param, decayed(update, param, shrink, options), fallback, options.fallbacks);
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
  for (size_t i = 0; i < params.size(); ++i) {
    const at::Tensor &param = params[i], &grad = grads[i];
    check_param(i, param);
    if (!grad.defined() || grad.layout() != at::kStrided || !grad.is_floating_point() ||
        grad.sizes() != param.sizes() || grad.device() != param.device()) {
      refuse(*this, c10::str("a dense gradient of shape ", param.sizes(), " on ", param.device()),
             i, grad.defined() ? describe(grad) : "none");
    }
    check_state_of(i, param, state[i]);
  }
  check_shared(state, params);
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

void UpdateRule::check_param(size_t index, const at::Tensor& param) const {
  if (param.defined() && param.layout() == at::kStrided && param.is_floating_point()) return;
  refuse(*this, "a dense floating-point tensor", index,
         param.defined() ? c10::str(param.scalar_type(), " ", param.layout()) : "none");
}

void UpdateRule::check_state_of(size_t index, const at::Tensor& param, ParamState& state) const {
  const StateLayout layout = state_layout(param);
  check_state(layout, state, name(), "parameter " + std::to_string(index));
  place_state(layout, state, param);
}

void UpdateRule::adopt(State& state, at::TensorList params) const {
  if (state.size() != params.size()) {
    throw InputError("[" + name() + "] expected a state for each of " +
                     std::to_string(params.size()) + " parameters, got " +
                     std::to_string(state.size()));
  }
  for (size_t i = 0; i < params.size(); ++i) {
    check_param(i, params[i]);
    check_state_of(i, params[i], state[i]);
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

namespace {

/// In place where nothing has to be mended, which a look at the numbers tells.
void clean_on_host(at::Tensor& grad, DeferredCount& nonfinite) {
  if (ops::is_clean(grad)) return;
  const at::Tensor finite = at::isfinite(grad);
  nonfinite.add(grad.numel() - finite.sum().item<int64_t>());
  const double largest = grad.scalar_type() == at::kHalf ? 65504.0 : ops::kLargestGradient;
  grad = grad.masked_fill(finite.logical_not(), 0).clamp(-largest, largest);
}

}  // namespace

void clean_gradients(std::vector<at::Tensor>& grads, DeferredCount& nonfinite) {
  const at::NoGradGuard no_grad;
  std::vector<size_t> elsewhere;
  for (size_t i = 0; i < grads.size(); ++i) {
    if (grads[i].is_cpu() && !ops::WithoutKernels::active()) {
      clean_on_host(grads[i], nonfinite);
    } else {
      elsewhere.push_back(i);
    }
  }
  while (!elsewhere.empty()) {
    const at::Device device = grads[elsewhere.front()].device();
    const auto rest = std::stable_partition(elsewhere.begin(), elsewhere.end(),
                                            [&](size_t i) { return grads[i].device() == device; });
    std::vector<at::Tensor> own;
    for (auto i = elsewhere.begin(); i != rest; ++i) own.push_back(grads[*i]);
    nonfinite.add(ops::clean_gradients(own));
    for (size_t k = 0; k < own.size(); ++k) grads[elsewhere[k]] = own[k];
    elsewhere.erase(elsewhere.begin(), rest);
  }
}

}  // namespace mnemosyne::optim
