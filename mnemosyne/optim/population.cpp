#include "mnemosyne/optim/population.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>

#include <utility>

#include "mnemosyne/core/error.h"

namespace mnemosyne::optim {
namespace {

/// Of every member, views of the stacked tensors without the leading dimension.
std::vector<std::vector<at::Tensor>> member_views(const std::vector<at::Tensor>& stacked,
                                                  size_t members) {
  const at::AutoDispatchBelowADInplaceOrView plain;  // nobody differentiates or watches the views
  std::vector<std::vector<at::Tensor>> views(members);
  for (std::vector<at::Tensor>& own : views) own.reserve(stacked.size());
  for (const at::Tensor& tensor : stacked) {
    for (size_t m = 0; m < members; ++m) {
      views[m].push_back(tensor.select(0, static_cast<int64_t>(m)));
    }
  }
  return views;
}

}  // namespace

Population::Population(Rules rules, const std::vector<at::Tensor>& params)
    : rules_(std::move(rules)) {
  for (const at::Tensor& param : params) {
    if (param.dim() < 1 || param.size(0) != size()) {
      throw InputError("[population] expected parameters of " + std::to_string(size()) +
                       " members, got others");
    }
    params_.push_back(param.detach());
  }
  views_ = member_views(params_, rules_.size());
  for (size_t m = 0; m < rules_.size(); ++m) {
    states_.push_back(init_state(*rules_[m], views_[m]));
    rules_[m]->adopt(states_[m], views_[m]);
  }
}

void Population::step_(const std::vector<at::Tensor>& grads,
                       const std::vector<StepOptions>& options, const std::vector<char>& alive) {
  bool fits = grads.size() == params_.size() && options.size() == rules_.size() &&
              alive.size() == rules_.size();
  for (size_t i = 0; fits && i < grads.size(); ++i) fits = grads[i].sizes() == params_[i].sizes();
  if (!fits) {
    throw InputError(
        "[population] expected gradients, options and marks of all members, got others");
  }
  const at::NoGradGuard no_grad;
  const std::vector<std::vector<at::Tensor>> own = member_views(grads, rules_.size());
  std::vector<MemberStep> together;
  for (size_t m = 0; m < rules_.size(); ++m) {
    if (!alive[m]) continue;
    if (!together.empty() && !together.back().rule->steps_with(*rules_[m])) {
      UpdateRule::step_members_(together);
      together.clear();
    }
    together.push_back({.rule = rules_[m].get(),
                        .grads = own[m],
                        .state = &states_[m],
                        .params = views_[m],
                        .options = options[m]});
  }
  UpdateRule::step_members_(together);
}

void Population::set_state(int64_t member, State state) {
  rules_[member]->adopt(state, views_[member]);
  states_[member] = std::move(state);
}

std::vector<at::Tensor> Population::evaluation_params() const {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> result;
  for (const at::Tensor& param : params_) result.push_back(param.clone());
  for (size_t m = 0; m < rules_.size(); ++m) {
    const std::vector<at::Tensor> own = rules_[m]->evaluation_params(states_[m], views_[m]);
    for (size_t i = 0; i < own.size(); ++i) {
      result[i].select(0, static_cast<int64_t>(m)).copy_(own[i]);
    }
  }
  return result;
}

}  // namespace mnemosyne::optim
