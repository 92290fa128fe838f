#include "mnemosyne/optim/adam.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>

#include <cmath>
#include <map>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/fields.h"

namespace mnemosyne::optim {

static void bind(Fields& visit, AdamOptions& options) {
  visit("beta1", options.beta1);
  visit("beta2", options.beta2);
  visit("eps", options.eps);
  visit("weight_decay", options.weight_decay);
}

Adam::Adam(const AdamOptions& options, std::string name)
    : options_(options), name_(std::move(name)) {
  check_option(options.beta1 >= 0.0 && options.beta1 < 1.0, name_, "beta1 in [0, 1)",
               options.beta1);
  check_option(options.beta2 >= 0.0 && options.beta2 < 1.0, name_, "beta2 in [0, 1)",
               options.beta2);
  check_option(options.eps >= 0.0, name_, "eps of at least 0", options.eps);
  check_option(options.weight_decay >= 0.0, name_, "weight_decay of at least 0",
               options.weight_decay);
}

std::string Adam::options_json() const { return write_options(options_); }

StateLayout Adam::state_layout(const at::Tensor& param) const {
  return {step_entry(), entry_like("m", param), entry_like("v", param)};
}

at::Tensor Adam::update_one(const at::Tensor& grad, ParamState& state, const at::Tensor&,
                            const StepOptions& options) const {
  const auto t = static_cast<double>(step_count(state));
  const double beta1 = options.momentum.value_or(options_.beta1);
  at::Tensor& m = state[1];
  at::Tensor& v = state[2];
  m.lerp_(grad, 1.0 - beta1);
  v.mul_(options_.beta2).addcmul_(grad, grad, 1.0 - options_.beta2);
  const double mean_scale = options.lr / (1.0 - std::pow(beta1, t));
  const double root_scale = 1.0 / std::sqrt(1.0 - std::pow(options_.beta2, t));
  return m.div(v.sqrt().mul_(root_scale).add_(options_.eps)).mul_(mean_scale);
}

void Adam::do_step_(at::TensorList grads, State& state, at::TensorList params,
                    const StepOptions& options, const std::vector<double>& shrink) const {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> fused_params, fused_grads, means, squares, counters;
  std::map<int64_t, at::Tensor> shared_counters;  // the kernel wants a float tensor per parameter
  for (size_t i = 0; i < params.size(); ++i) {
    if (!params[i].is_cpu() || !fusable(params[i], grads[i], state[i][1], state[i][2])) {
      step_one_(grads[i], state[i], params[i], options, shrink[i]);
      continue;
    }
    count_step(state[i]);
    fused_params.push_back(params[i]);
    fused_grads.push_back(grads[i]);
    means.push_back(state[i][1]);
    squares.push_back(state[i][2]);
    at::Tensor& counter = shared_counters[step_count(state[i])];
    if (!counter.defined()) counter = at::full({}, step_count(state[i]), at::kFloat);
    counters.push_back(counter);
  }
  if (fused_params.empty()) return;
  // The kernel multiplies the two that `shrink` is the product of.
  at::_fused_adamw_(fused_params, fused_grads, means, squares, /*max_exp_avg_sqs=*/{}, counters,
                    options.lr, options.momentum.value_or(options_.beta1), options_.beta2,
                    *options.weight_decay, options_.eps, /*amsgrad=*/false, /*maximize=*/false);
}

std::shared_ptr<UpdateRule> make_adam(const std::string& options_json) {
  return std::make_shared<Adam>(read_options<AdamOptions>("adam", options_json), "adam");
}

std::shared_ptr<UpdateRule> make_adamw(const std::string& options_json) {
  const AdamOptions defaults{.weight_decay = 0.01};
  return std::make_shared<Adam>(read_options("adamw", options_json, defaults), "adamw");
}

}  // namespace mnemosyne::optim
