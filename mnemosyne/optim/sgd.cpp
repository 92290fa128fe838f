#include "mnemosyne/optim/sgd.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_sgd.h>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/fields.h"

namespace mnemosyne::optim {

static void bind(Fields& visit, SgdOptions& options) {
  visit("momentum", options.momentum);
  visit("nesterov", options.nesterov);
}

Sgd::Sgd(const SgdOptions& options) : options_(options) {
  check_option(options.momentum >= 0.0 && options.momentum < 1.0, "sgd", "momentum in [0, 1)",
               options.momentum);
  check_option(!options.nesterov || options.momentum > 0.0, "sgd",
               "a momentum above 0 with nesterov", options.momentum);
}

std::string Sgd::options_json() const { return write_options(options_); }

StateLayout Sgd::state_layout(const at::Tensor& param) const {
  if (options_.momentum == 0.0) return {step_entry()};
  return {step_entry(), entry_like("momentum", param)};
}

std::optional<double> Sgd::default_momentum() const {
  return options_.momentum == 0.0 ? std::nullopt : std::optional(options_.momentum);
}

at::Tensor Sgd::update_one(const at::Tensor& grad, ParamState& state, const at::Tensor&,
                           const StepOptions& options) const {
  at::Tensor direction = grad;
  if (options_.momentum != 0.0) {
    const double decay = options.momentum.value_or(options_.momentum);
    at::Tensor& momentum = state[1];
    momentum.mul_(decay).add_(grad);
    direction = options_.nesterov ? grad.add(momentum, decay) : momentum;
  }
  return direction.mul(options.lr);
}

void Sgd::do_step_(at::TensorList grads, State& state, at::TensorList params,
                   const StepOptions& options, const std::vector<double>& shrink) const {
  const at::NoGradGuard no_grad;
  const bool has_momentum = options_.momentum != 0.0;
  std::vector<at::Tensor> fused_params, fused_grads, momenta;
  for (size_t i = 0; i < params.size(); ++i) {
    const at::Tensor momentum = has_momentum ? state[i][1] : at::Tensor();
    if (!params[i].is_cpu() || !fusable(params[i], grads[i], momentum)) {
      step_one_(grads[i], state[i], params[i], options, shrink[i]);
      continue;
    }
    count_step(state[i]);
    if (shrink[i] != 0.0) params[i].mul_(1.0 - shrink[i]);
    fused_params.push_back(params[i]);
    fused_grads.push_back(grads[i]);
    if (has_momentum) momenta.push_back(momentum);
  }
  if (fused_params.empty()) return;
  at::_fused_sgd_(fused_params, fused_grads, momenta, /*weight_decay=*/0.0,
                  options.momentum.value_or(options_.momentum), options.lr, /*dampening=*/0.0,
                  options_.nesterov, /*maximize=*/false, /*is_first_step=*/false);
}

std::shared_ptr<UpdateRule> make_sgd(const std::string& options_json) {
  return std::make_shared<Sgd>(read_options<SgdOptions>("sgd", options_json));
}

}  // namespace mnemosyne::optim
