#include "mnemosyne/optim/schedule_free.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/fields.h"

namespace mnemosyne::optim {

static void bind(Fields& visit, ScheduleFreeOptions& options) {
  visit("beta1", options.beta1);
  visit("beta2", options.beta2);
  visit("eps", options.eps);
  visit("warmup_steps", options.warmup_steps);
  visit("lr_power", options.lr_power);
}

namespace {

enum Slot { kStep, kSquares, kFast, kWeightSum, kLargestLr };

StateEntry number_entry(std::string name) { return {std::move(name), {}, at::kDouble}; }

at::Tensor decay_of(const at::Tensor& param, const StepOptions& options) {
  const at::Tensor decay = param * *options.weight_decay;
  const at::Tensor& factor = options.weight_decay_factor;
  return factor.defined() ? decay * factor.to(decay.options()) : decay;
}

}  // namespace

ScheduleFree::ScheduleFree(const ScheduleFreeOptions& options) : options_(options) {
  check_option(options.beta1 > 0.0 && options.beta1 < 1.0, name(), "beta1 in (0, 1)",
               options.beta1);
  check_option(options.beta2 >= 0.0 && options.beta2 < 1.0, name(), "beta2 in [0, 1)",
               options.beta2);
  check_option(options.eps >= 0.0, name(), "eps of at least 0", options.eps);
  check_option(options.warmup_steps >= 0, name(), "warmup_steps of at least 0",
               static_cast<double>(options.warmup_steps));
  check_option(options.lr_power >= 0.0, name(), "lr_power of at least 0", options.lr_power);
}

std::string ScheduleFree::options_json() const { return write_options(options_); }

StateLayout ScheduleFree::state_layout(const at::Tensor& param) const {
  return {step_entry(), entry_like("v", param), entry_like("z", param), number_entry("weight_sum"),
          number_entry("largest_lr")};
}

ParamState ScheduleFree::init(const at::Tensor& param) const {
  ParamState state = UpdateRule::init(param);
  state[kFast].copy_(param.detach());
  return state;
}

at::Tensor ScheduleFree::update_one(const at::Tensor& grad, ParamState& state,
                                    const at::Tensor& param, const StepOptions& options) const {
  const auto t = static_cast<double>(step_count(state));
  const double warmup = options_.warmup_steps > 0
                            ? std::min(1.0, t / static_cast<double>(options_.warmup_steps))
                            : 1.0;
  at::Tensor &largest_lr = state[kLargestLr], &weight_sum = state[kWeightSum];
  at::Tensor lr = at::full({}, options.lr * warmup, largest_lr.options());
  if (options.lr_factor.defined()) lr.mul_(options.lr_factor.to(lr.options()));
  largest_lr.copy_(at::maximum(largest_lr, lr));
  const at::Tensor weight = largest_lr.pow(options_.lr_power);
  weight_sum.add_(weight);
  const at::Tensor share = at::where(weight_sum > 0, weight / weight_sum, 0.0);

  at::Tensor& squares = state[kSquares];
  at::Tensor& fast = state[kFast];
  squares.mul_(options_.beta2).addcmul_(grad, grad, 1.0 - options_.beta2);
  const double root_scale = 1.0 / std::sqrt(1.0 - std::pow(options_.beta2, t));
  at::Tensor direction = grad.div(squares.sqrt().mul_(root_scale).add_(options_.eps));
  if (*options.weight_decay != 0.0) direction.add_(decay_of(param, options));

  at::Tensor update = param.sub(fast).mul_(share);
  const at::Tensor step = lr * (1.0 - options_.beta1 * (1.0 - share));
  update.addcmul_(direction, step.to(update.scalar_type()));
  fast.addcmul_(direction, lr.to(fast.scalar_type()), -1.0);
  return update;
}

std::vector<at::Tensor> ScheduleFree::evaluation_params(const State& state,
                                                        at::TensorList params) const {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> averages;
  averages.reserve(params.size());
  for (size_t i = 0; i < params.size(); ++i) {
    check_state(state_layout(params[i]), state.at(i), name(), "parameter " + std::to_string(i));
    const at::Tensor y = params[i].detach().to(state[i][kFast].scalar_type());
    averages.push_back(
        y.lerp(state[i][kFast], 1.0 - 1.0 / options_.beta1).to(params[i].scalar_type()));
  }
  return averages;
}

std::shared_ptr<UpdateRule> make_schedule_free(const std::string& options_json) {
  return std::make_shared<ScheduleFree>(
      read_options<ScheduleFreeOptions>("schedule-free", options_json));
}

}  // namespace mnemosyne::optim
