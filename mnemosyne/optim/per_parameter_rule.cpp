#include "mnemosyne/optim/per_parameter_rule.h"

#include <ATen/core/grad_mode.h>

#include "mnemosyne/optim/fallback.h"

namespace mnemosyne::optim {

UpdateResult PerParameterRule::do_update(at::TensorList grads, const State& state,
                                         at::TensorList params, const StepOptions& options) const {
  const at::NoGradGuard no_grad;
  UpdateResult result{.updates = {}, .state = clone_state(state)};
  result.updates.reserve(params.size());
  for (size_t i = 0; i < params.size(); ++i) {
    const at::ScalarType dtype = compute_dtype(params[i]);
    count_step(result.state[i]);
    if (params[i].numel() == 0) {
      result.updates.push_back(zeros_for(params[i]));
      continue;
    }
    result.updates.push_back(
        update_one(grads[i].to(dtype), result.state[i], params[i].detach().to(dtype), options));
  }
  return result;
}

void PerParameterRule::do_step_(at::TensorList grads, State& state, at::TensorList params,
                                const StepOptions& options,
                                const std::vector<double>& shrink) const {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < params.size(); ++i) {
    step_one_(grads[i], state[i], params[i], options, shrink[i]);
  }
}

void PerParameterRule::step_one_(const at::Tensor& grad, ParamState& state, const at::Tensor& param,
                                 const StepOptions& options, double shrink) const {
  const at::ScalarType dtype = compute_dtype(param);
  count_step(state);
  if (param.numel() == 0) return;
  const at::Tensor update = update_one(grad.to(dtype), state, param.to(dtype), options);
  move_(param, update, shrink, grad, state, options);
}

void count_step(ParamState& state) { *state.at(0).mutable_data_ptr<int64_t>() += 1; }

bool fusable(const at::Tensor& param, const at::Tensor& grad, const at::Tensor& first_state,
             const at::Tensor& second_state) {
  if (compute_dtype(param) != param.scalar_type() || !param.is_contiguous()) return false;
  for (const at::Tensor* other : {&grad, &first_state, &second_state}) {
    if (!other->defined()) continue;
    if (other->scalar_type() != param.scalar_type() || other->device() != param.device() ||
        !other->is_contiguous()) {
      return false;
    }
  }
  return true;
}

}  // namespace mnemosyne::optim
