#include "mnemosyne/optim/fused_step.h"

#include <algorithm>

namespace mnemosyne::optim {

bool FusedStep::supports(at::TensorList grads, at::TensorList params) {
  const auto fits = [](const at::Tensor& t) {
    return t.device().is_cpu() && t.layout() == at::kStrided && t.scalar_type() != at::kDouble;
  };
  return std::all_of(params.begin(), params.end(), fits) &&
         std::all_of(grads.begin(), grads.end(), fits);
}

FusedStep::FusedStep(at::TensorList grads, State& state, at::TensorList params,
                     const std::vector<int64_t>& rows)
    : params_(params) {
  for (size_t i = 0; i < params.size(); ++i) {
    *state[i][0].mutable_data_ptr<int64_t>() += 1;
    ops::TensorStepItem& item = items_.emplace_back();
    item.param = params[i].detach().to(at::kFloat).contiguous();
    item.grad = grads[i].detach().to(at::kFloat).contiguous();
    item.momentum = state[i][1];
    if (state[i][2].numel() == params[i].numel()) item.second_moment = state[i][2];
    item.rows = rows[i];
  }
}

void FusedStep::finish() {
  for (size_t i = 0; i < items_.size(); ++i) {
    if (!items_[i].param.is_alias_of(params_[i])) params_[i].copy_(items_[i].param);
  }
}

}  // namespace mnemosyne::optim
