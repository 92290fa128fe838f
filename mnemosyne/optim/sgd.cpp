#include "mnemosyne/optim/sgd.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_fused_sgd.h>

#include "mnemosyne/optim/rule_options.h"

namespace mnemosyne::optim {

static void bind(OptionVisitor& visit, SgdOptions& options) {
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

std::vector<std::string> Sgd::state_names() const {
  if (options_.momentum == 0.0) return {"step"};
  return {"step", "momentum"};
}

ParamState Sgd::init(const at::Tensor& param) const {
  if (options_.momentum == 0.0) return {new_step_counter()};
  return {new_step_counter(), zeros_for(param)};
}

at::Tensor Sgd::update_one(const at::Tensor& grad, ParamState& state, const at::Tensor& param,
                           const StepOptions& options) const {
  at::Tensor direction = grad;
  if (options_.momentum != 0.0) {
    at::Tensor& momentum = state[1];
    momentum.mul_(options_.momentum).add_(grad);
    direction = options_.nesterov ? grad.add(momentum, options_.momentum) : momentum;
  }
  at::Tensor update = direction.mul(options.lr);
  if (options.weight_decay != 0.0) update.add_(param, options.lr * options.weight_decay);
  return update;
}

void Sgd::step_(at::TensorList grads, State& state, at::TensorList params,
                const StepOptions& options) const {
  const at::NoGradGuard no_grad;
  const bool has_momentum = options_.momentum != 0.0;
  std::vector<at::Tensor> fused_params, fused_grads, momenta;
  for (size_t i = 0; i < params.size(); ++i) {
    const at::Tensor momentum = has_momentum ? state[i][1] : at::Tensor();
    if (!params[i].is_cpu() || !fusable(params[i], grads[i], momentum)) {
      step_one_(grads[i], state[i], params[i], options);
      continue;
    }
    count_step(state[i]);
    fused_params.push_back(params[i]);
    fused_grads.push_back(grads[i]);
    if (has_momentum) momenta.push_back(momentum);
  }
  if (fused_params.empty()) return;
  if (options.weight_decay != 0.0) {
    at::_foreach_mul_(fused_params, 1.0 - options.lr * options.weight_decay);
  }
  at::_fused_sgd_(fused_params, fused_grads, momenta, /*weight_decay=*/0.0, options_.momentum,
                  options.lr, /*dampening=*/0.0, options_.nesterov, /*maximize=*/false,
                  /*is_first_step=*/false);
}

std::shared_ptr<UpdateRule> make_sgd(const std::string& options_json) {
  return std::make_shared<Sgd>(read_options<SgdOptions>("sgd", options_json));
}

}  // namespace mnemosyne::optim
