#include "mnemosyne/optim/update_rule.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "mnemosyne/core/error.h"

namespace mnemosyne::optim {
namespace {

constexpr double kLargestGradient = 1e18;

}  // namespace

void UpdateRule::step_(at::TensorList grads, State& state, at::TensorList params,
                       const StepOptions& options) const {
  const at::NoGradGuard no_grad;
  UpdateResult result = update(grads, state, params, options);
  for (size_t i = 0; i < params.size(); ++i) params[i].sub_(result.updates[i]);
  state = std::move(result.state);
}

std::vector<at::Tensor> UpdateRule::evaluation_params(const State&, at::TensorList params) const {
  return params.vec();
}

std::shared_ptr<UpdateRule> UpdateRule::with_weights(const NamedTensors&) const {
  throw InputError("[" + name() + "] expected a learned optimizer, got one without weights");
}

at::ScalarType compute_dtype(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

at::Tensor zeros_for(const at::Tensor& param) {
  return at::zeros(param.sizes(), param.options().dtype(compute_dtype(param)).requires_grad(false));
}

at::Tensor new_step_counter() { return at::zeros({}, at::TensorOptions(at::kLong)); }

int64_t step_count(const ParamState& state) { return *state.at(0).const_data_ptr<int64_t>(); }

State clone_state(const State& state) {
  State copy;
  copy.reserve(state.size());
  for (const ParamState& tensors : state) {
    ParamState& target = copy.emplace_back();
    for (const at::Tensor& tensor : tensors) target.push_back(tensor.clone());
  }
  return copy;
}

State init_state(const UpdateRule& rule, at::TensorList params) {
  State state;
  state.reserve(params.size());
  for (const at::Tensor& param : params) state.push_back(rule.init(param));
  return state;
}

int64_t clean_gradients(std::vector<at::Tensor>& grads) {
  const at::NoGradGuard no_grad;
  int64_t bad = 0;
  for (at::Tensor& grad : grads) {
    // A sum is one fast pass; it is finite and small unless something has to be mended.
    const double total = grad.abs().sum(at::kDouble).item<double>();
    if (std::isfinite(total) && total < kLargestGradient) continue;
    const at::Tensor finite = at::isfinite(grad);
    bad += grad.numel() - finite.sum().item<int64_t>();
    const double largest = grad.scalar_type() == at::kHalf ? 65504.0 : kLargestGradient;
    grad = grad.masked_fill(finite.logical_not(), 0).clamp(-largest, largest);
  }
  return bad;
}

}  // namespace mnemosyne::optim
