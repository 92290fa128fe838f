#include "mnemosyne/optim/orthogonal.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/fields.h"

namespace mnemosyne::optim {
namespace {

void validate(const OrthogonalOptions& options) {
  const std::string rule = "orthogonal";
  const auto is_decay = [](double value) { return value >= 0.0 && value < 1.0; };
  check_option(options.lr >= 0.0, rule, "lr of at least 0", options.lr);
  check_option(is_decay(options.momentum), rule, "momentum in [0, 1)", options.momentum);
  check_option(is_decay(options.beta1), rule, "beta1 in [0, 1)", options.beta1);
  check_option(is_decay(options.beta2), rule, "beta2 in [0, 1)", options.beta2);
  check_option(options.eps >= 0.0, rule, "eps of at least 0", options.eps);
  check_option(options.warmup_steps >= 0, rule, "warmup_steps of at least 0",
               static_cast<double>(options.warmup_steps));
  check_option(options.decay_steps > 0.0, rule, "decay_steps above 0", options.decay_steps);
  check_option(options.boost >= 1.0, rule, "boost of at least 1", options.boost);
  check_option(options.boost_steps >= 0.0, rule, "boost_steps of at least 0", options.boost_steps);
}

}  // namespace

int64_t matrix_rows(const at::Tensor& param) {
  if (param.dim() < 2 || param.numel() == 0) return 0;
  const int64_t rows = param.size(0);
  return rows > 1 && param.numel() > rows ? rows : 0;
}

double base_step_size(const OrthogonalOptions& options, const StepOptions& step, int64_t t) {
  const double warmup =
      options.warmup_steps > 0
          ? std::min(1.0, static_cast<double>(t) / static_cast<double>(options.warmup_steps))
          : 1.0;
  const double before = static_cast<double>(t - 1);
  double schedule =
      1.0 / std::sqrt(1.0 / (options.boost * options.boost) + before / options.decay_steps);
  if (step.num_steps) {
    const double length = static_cast<double>(*step.num_steps);
    const double boost = std::clamp(std::sqrt(options.boost_steps / length), 1.0, options.boost);
    const double progress = std::min(before, length - 1.0) / length;
    schedule = boost * 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
  }
  return step.lr * options.lr * warmup * schedule;
}

ops::StepBase base_coefficients(const OrthogonalOptions& options, const StepOptions& step,
                                int64_t t, bool matrix) {
  ops::StepBase c;
  const double momentum = step.momentum.value_or(options.momentum);
  c.momentum_decay = matrix ? momentum : step.momentum.value_or(options.beta1);
  c.second_decay = options.beta2;
  c.momentum_correction = 1.0 / (1.0 - std::pow(c.momentum_decay, t));
  c.second_correction = 1.0 / (1.0 - std::pow(c.second_decay, t));
  c.eps = options.eps;
  c.step = base_step_size(options, step, t);
  c.blend = 1.0 - momentum;
  return c;
}

OrthogonalRule::OrthogonalRule(OrthogonalOptions options) : options_(options) { validate(options); }

int64_t OrthogonalRule::rows(const at::Tensor& param) const {
  return elementwise_ ? 0 : matrix_rows(param);
}

StateLayout OrthogonalRule::state_layout(const at::Tensor& param) const {
  return {
      step_entry(), entry_like("momentum", param),
      rows(param) > 0 ? entry_of("second_moment", {0}, param) : entry_like("second_moment", param)};
}

std::shared_ptr<const UpdateRule> OrthogonalRule::elementwise() const {
  auto rule = std::make_shared<OrthogonalRule>(*this);
  rule->elementwise_ = true;
  return rule;
}

std::vector<double> OrthogonalRule::step_sizes(const State& state, at::TensorList params,
                                               const StepOptions& options) const {
  std::vector<double> sizes;
  for (size_t i = 0; i < params.size(); ++i) {
    sizes.push_back(base_step_size(options_, options, step_count(state[i]) + 1));
  }
  return sizes;
}

void OrthogonalRule::join(at::TensorList grads, const State& state, at::TensorList params,
                          const StepOptions& options, const std::vector<double>& shrink,
                          StepList::Inputs& all) const {
  for (size_t i = 0; i < params.size(); ++i) {
    const int64_t rows = this->rows(params[i]);
    all.grads.push_back(grads[i]);
    all.params.push_back(params[i]);
    all.state.push_back(state[i]);
    all.rows.push_back(rows);
    all.base.push_back(base_coefficients(options_, options, step_count(state[i]) + 1, rows > 0));
    all.base.back().decay = shrink[i];
  }
  all.lr_factor = options.lr_factor;
  all.weight_decay_factor = options.weight_decay_factor;
}

StepList::Inputs OrthogonalRule::inputs(at::TensorList grads, const State& state,
                                        at::TensorList params, const StepOptions& options) const {
  StepList::Inputs result;
  join(grads, state, params, options, std::vector<double>(params.size()), result);
  result.state.shared = state.shared;
  return result;
}

UpdateResult OrthogonalRule::do_update(at::TensorList grads, const State& state,
                                       at::TensorList params, const StepOptions& options) const {
  StepList list(StepList::Form::kPure, inputs(grads, state, params, options));
  list.advance(/*with_sums=*/false);
  return {.updates = list.directions(nullptr), .state = std::move(list.state())};
}

void OrthogonalRule::step_joined_(const std::vector<MemberStep>& members) {
  const at::NoGradGuard no_grad;
  StepList::Inputs all;
  for (const MemberStep& member : members) {
    static_cast<const OrthogonalRule&>(*member.rule)
        .join(member.grads, *member.state, member.params, member.options, member.shrink, all);
  }
  StepList list(StepList::Form::kInPlace, std::move(all));
  list.advance(/*with_sums=*/false);
  list.apply(nullptr, members.front().options.fallbacks);
}

void OrthogonalRule::do_step_(at::TensorList grads, State& state, at::TensorList params,
                              const StepOptions& options, const std::vector<double>& shrink) const {
  step_joined_({{this, grads, &state, params, options, shrink}});
}

bool OrthogonalRule::steps_with(const UpdateRule& other) const {
  return dynamic_cast<const OrthogonalRule*>(&other) != nullptr;
}

void OrthogonalRule::do_step_members_(const std::vector<MemberStep>& members) const {
  if (!StepList::can_join(members)) return UpdateRule::do_step_members_(members);
  step_joined_(members);
}

std::string OrthogonalRule::options_json() const { return write_options(options_); }

void bind(Fields& visit, OrthogonalOptions& options) {
  visit("lr", options.lr);
  visit("momentum", options.momentum);
  visit("beta1", options.beta1);
  visit("beta2", options.beta2);
  visit("eps", options.eps);
  visit("warmup_steps", options.warmup_steps);
  visit("decay_steps", options.decay_steps);
  visit("boost", options.boost);
  visit("boost_steps", options.boost_steps);
}

std::shared_ptr<UpdateRule> make_orthogonal_rule(const std::string& options_json) {
  return std::make_shared<OrthogonalRule>(
      read_options<OrthogonalOptions>("orthogonal", options_json));
}

}  // namespace mnemosyne::optim
