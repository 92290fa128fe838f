#include "mnemosyne/optim/compact.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/fields.h"
#include "mnemosyne/ops/orthogonalize/orthogonalize.h"
#include "mnemosyne/ops/tensor_step/chunks.h"
#include "mnemosyne/optim/deferred_count.h"
#include "mnemosyne/optim/low_rank.h"
#include "mnemosyne/optim/step_features.h"
#include "mnemosyne/optim/step_guard.h"
#include "mnemosyne/optim/step_outputs.h"

namespace mnemosyne::optim {
namespace {

enum Slot : size_t { kStep, kLeft, kRight, kMomentum, kSecondMoment, kSignals, kGradSquared };
constexpr char kRule[] = "mnemosyne-compact";
constexpr char kControllerName[] = "controller";
constexpr double kLargestStepBound = 3.0;
constexpr double kSmallestSize = 1e-20;

at::Tensor as_matrix(const at::Tensor& x) { return x.reshape({x.size(0), -1}); }

/// <x, y> in the dtype of sums.
at::Tensor inner_product(const at::Tensor& x, const at::Tensor& y) {
  return (x * y).sum(ops::sum_dtype(x.device()));
}

/// The number that a correction has for a tensor, where it has some.
at::Tensor of_tensor(const at::Tensor& values, size_t index, const at::Tensor& like) {
  if (!values.defined()) return values;
  return values.select(0, static_cast<int64_t>(index)).to(like.device(), like.scalar_type());
}

/// Adam's direction.
at::Tensor adam(const ParamState& state, const ops::StepBase& base) {
  const at::Tensor root = (state[kSecondMoment] * base.second_correction).sqrt() + base.eps;
  return state[kMomentum] * base.momentum_correction / root;
}

/// The numbers of a state in the tensors that held it before, which others may know.
void write_to(const ParamState& held, ParamState& state) {
  for (size_t k = 0; k < held.size(); ++k) {
    if (!state[k].is_same(held[k])) held[k].copy_(state[k]);
    state[k] = held[k];
  }
}

at::Tensor orthogonalized(const at::Tensor& x) {
  const bool differentiable = at::GradMode::is_enabled() && x.requires_grad();
  return differentiable ? ops::orthogonalize_reference(x) : ops::orthogonalize(x);
}

}  // namespace

CompactRule::CompactRule(CompactOptions options) : options_(options), base_(options.base) {
  check_option(options.step_bound >= 0.0 && options.step_bound <= kLargestStepBound, kRule,
               "step_bound in [0, 3]", options.step_bound);
  check_option(options.rank >= 1, kRule, "rank of at least 1", static_cast<double>(options.rank));
  controller_ = at::zeros({static_cast<int64_t>(step_output_names().size()),
                           static_cast<int64_t>(step_feature_names().size())},
                          at::kFloat);
}

bool CompactRule::is_factored(const at::Tensor& param) const {
  const int64_t rows = matrix_rows(param);
  if (rows == 0) return false;
  const int64_t columns = param.numel() / rows;
  return options_.rank <= std::min(rows, columns) &&
         2 * options_.rank * (rows + columns) <= param.numel();
}

StateLayout CompactRule::state_layout(const at::Tensor& param) const {
  StateLayout layout{step_entry()};
  const bool factored = is_factored(param), matrix = matrix_rows(param) > 0;
  const auto either = [&](const char* name, bool there) {
    return there ? entry_like(name, param) : entry_of(name, {0}, param);
  };
  if (factored) {
    const int64_t rows = matrix_rows(param);
    layout.push_back(entry_of("left", {rows, options_.rank}, param));
    layout.push_back(entry_of("right", {param.numel() / rows, options_.rank}, param));
  } else {
    layout.push_back(entry_of("left", {0}, param));
    layout.push_back(entry_of("right", {0}, param));
  }
  layout.push_back(either("momentum", !factored));
  layout.push_back(either("second_moment", !matrix));
  // Python keeps what is not of the parameter's shape in one tensor, of one dtype.
  layout.push_back(entry_of("signals", {options_.learned ? kNumSignals : 0}, param));
  layout.push_back(entry_of("grad_squared", {options_.learned ? 1 : 0}, param));
  return layout;
}

std::vector<double> CompactRule::step_sizes(const State& state, at::TensorList params,
                                            const StepOptions& options) const {
  return base_.step_sizes(state, params, options);
}

std::vector<ops::StepBase> CompactRule::count_steps(State& state, at::TensorList params,
                                                    const StepOptions& options) const {
  std::vector<ops::StepBase> base;
  for (size_t i = 0; i < params.size(); ++i) {
    state[i][kStep] = state[i][kStep] + 1;
    base.push_back(base_coefficients(options_.base, options, step_count(state[i]),
                                     matrix_rows(params[i]) > 0));
  }
  return base;
}

ops::StepSums CompactRule::look(at::TensorList grads, State& state, at::TensorList params,
                                const std::vector<ops::StepBase>& base) const {
  std::vector<std::vector<at::Tensor>> sums(ops::kNumMomentSums);
  const at::Device home = params[0].device();
  for (size_t i = 0; i < params.size(); ++i) {
    ParamState& own = state[i];
    const at::Tensor g = grads[i].detach().to(compute_dtype(params[i]));
    const at::Tensor p = params[i].detach().to(g.scalar_type());
    const bool factored = is_factored(params[i]);
    const at::Tensor squared = inner_product(g, g);
    // <g, L R^T> = <g^T L, R>; |L R^T| = |R|, as the columns of L are orthonormal.
    const at::Tensor& held = factored ? own[kRight] : own[kMomentum];
    const at::Tensor old_squared = inner_product(held, held);
    const at::Tensor product = factored
                                   ? inner_product(as_matrix(g).t().matmul(own[kLeft]), own[kRight])
                                   : inner_product(g, held);
    const double b1 = base[i].momentum_decay, b2 = base[i].second_decay;
    const at::Tensor new_squared =
        b1 * b1 * old_squared + 2.0 * b1 * (1.0 - b1) * product + (1.0 - b1) * (1.0 - b1) * squared;
    // The mean, as sums leave the range of float32 sooner.
    const auto size = static_cast<double>(std::max<int64_t>(g.numel(), 1));
    const at::Tensor mean = (squared / size).to(g.scalar_type());
    own[kGradSquared] = b2 * own[kGradSquared] + (1.0 - b2) * mean;
    const at::Tensor all[] = {product,
                              squared,
                              old_squared,
                              new_squared.clamp_min(0.0),  // rounding
                              inner_product(p, p),
                              size * own[kGradSquared].select(0, 0).to(squared.scalar_type()),
                              (g == 0).sum(squared.scalar_type())};
    for (size_t k = 0; k < sums.size(); ++k) {
      sums[k].push_back(all[k].to(home, ops::sum_dtype(home)));
    }
  }
  ops::StepSums result;
  for (size_t k = 0; k < sums.size(); ++k) result.*ops::kStepSums[k] = at::stack(sums[k]);
  return result;
}

ops::StepCorrection CompactRule::decide(at::TensorList grads, State& state, at::TensorList params,
                                        const StepOptions& options,
                                        const std::vector<ops::StepBase>& base) const {
  if (!options_.learned || params.empty()) return {};
  const ops::StepSums sums = look(grads, state, params, base);
  std::vector<at::Tensor> signals;
  std::vector<TensorFacts> facts;
  for (size_t i = 0; i < params.size(); ++i) {
    signals.push_back(state[i][kSignals].to(at::kFloat));
    facts.push_back({.t = step_count(state[i]),
                     .num_steps = options.num_steps,
                     .size = params[i].numel(),
                     .rows = matrix_rows(params[i])});
  }
  const at::Tensor x = advance_features(signals, /*in_place=*/false, sums, facts);
  for (size_t i = 0; i < params.size(); ++i) {
    state[i][kSignals] = signals[i].to(state[i][kSignals].scalar_type());
  }
  const at::Tensor trust = step_trust(x);
  if (options.damped != nullptr) options.damped->add((trust < 1.0).sum());
  const at::Tensor z = x.matmul(controller_.to(x.options()).t()) * trust.unsqueeze(1);
  if (options.decisions != nullptr) *options.decisions = {x, z};
  return step_correction(z, {.step = options_.step_bound, .mixture = 0.0});
}

at::Tensor CompactRule::direction(const at::Tensor& grad, ParamState& state,
                                  const at::Tensor& param, const ops::StepBase& base,
                                  const ops::StepCorrection& correction, size_t index) const {
  const at::Tensor g = grad.detach().to(compute_dtype(param));
  const double b1 = base.momentum_decay, b2 = base.second_decay;
  at::Tensor u;
  if (matrix_rows(param) == 0) {
    state[kMomentum] = b1 * state[kMomentum] + (1.0 - b1) * g;
    state[kSecondMoment] = b2 * state[kSecondMoment] + (1.0 - b2) * g * g;
    u = adam(state, base);
  } else {
    const at::Tensor gradient = as_matrix(g);
    at::Tensor m;
    if (is_factored(param)) {
      const LowRank before{.left = state[kLeft], .right = state[kRight]};
      m = b1 * product(before) + (1.0 - b1) * gradient;
      LowRank after = follow(m, before);
      state[kLeft] = std::move(after.left);
      state[kRight] = std::move(after.right);
    } else {
      state[kMomentum] = b1 * state[kMomentum] + (1.0 - b1) * g;
      m = as_matrix(state[kMomentum]);
    }
    const at::Tensor factor = of_tensor(correction.blend, index, m);
    const at::Tensor blended = base.blend * (gradient - m);
    const at::Tensor d = m + (factor.defined() ? factor * blended : blended);
    const auto longer = static_cast<double>(std::max(d.size(0), d.size(1)));
    u = (ops::kDirectionRms * std::sqrt(longer) * orthogonalized(d)).view(param.sizes());
  }
  const at::Tensor decay = of_tensor(correction.decay, index, u);
  if (decay.defined()) u = u + decay * param.detach().to(u.scalar_type());
  const at::Tensor step = of_tensor(correction.step, index, u);
  return base.step * (step.defined() ? step * u : u);
}

UpdateResult CompactRule::do_update(at::TensorList grads, const State& state, at::TensorList params,
                                    const StepOptions& options) const {
  UpdateResult result{.updates = {}, .state = state};
  const std::vector<ops::StepBase> base = count_steps(result.state, params, options);
  const ops::StepCorrection correction = decide(grads, result.state, params, options, base);
  for (size_t i = 0; i < params.size(); ++i) {
    result.updates.push_back(
        direction(grads[i], result.state[i], params[i], base[i], correction, i));
  }
  return result;
}

void CompactRule::do_step_(at::TensorList grads, State& state, at::TensorList params,
                           const StepOptions& options, const std::vector<double>& shrink) const {
  const at::NoGradGuard no_grad;
  const State held = state;
  const std::vector<ops::StepBase> base = count_steps(state, params, options);
  const ops::StepCorrection correction = decide(grads, state, params, options, base);
  for (size_t i = 0; i < params.size(); ++i) {
    const at::Tensor update = direction(grads[i], state[i], params[i], base[i], correction, i);
    move_(params[i], update, shrink[i], grads[i], state[i], options);
    write_to(held[i], state[i]);
  }
}

at::Tensor CompactRule::fallback_update(const at::Tensor&, const ParamState& state,
                                        const at::Tensor& param, const StepOptions& options) const {
  const int64_t rows = matrix_rows(param);
  const ops::StepBase base = base_coefficients(options_.base, options, step_count(state), rows > 0);
  if (rows == 0) return base.step * adam(state, base);
  const at::Tensor m = is_factored(param)
                           ? product({state[kLeft], state[kRight]}).view(param.sizes())
                           : state[kMomentum];
  const at::Tensor size = m.to(ops::sum_dtype(m.device())).square().mean().sqrt();
  return m * (base.step * ops::kDirectionRms / size.clamp_min(kSmallestSize)).to(m.scalar_type());
}

NamedTensors CompactRule::weights() const { return {{kControllerName, controller_}}; }

WeightAxes CompactRule::weight_axes() const {
  return {{kControllerName, {step_output_names(), step_feature_names()}}};
}

std::shared_ptr<UpdateRule> CompactRule::with_weights(const NamedTensors& weights) const {
  auto rule = std::make_shared<CompactRule>(*this);
  rule->controller_ = matching(name(), this->weights(), weights)[0].second;
  return rule;
}

void bind(Fields& visit, CompactOptions& options) {
  bind(visit, options.base);
  visit("learned", options.learned);
  visit("rank", options.rank);
  visit("step_bound", options.step_bound);
}

std::string CompactRule::options_json() const { return write_options(options_); }

std::shared_ptr<UpdateRule> make_compact_rule(const std::string& options_json) {
  return std::make_shared<CompactRule>(read_options<CompactOptions>(kRule, options_json));
}

}  // namespace mnemosyne::optim
