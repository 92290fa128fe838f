#include "mnemosyne/optim/fallback.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/where.h>

#include <cmath>

namespace mnemosyne::optim {
namespace {

// A sum is one fast pass; only where it is not finite can an entry be so.
bool all_finite(const at::Tensor& tensor) {
  return std::isfinite(tensor.sum().item<double>()) || at::isfinite(tensor).all().item<bool>();
}

at::Tensor finite_part(const at::Tensor& tensor) {
  return at::where(at::isfinite(tensor), tensor, 0.0);
}

}  // namespace

void subtract_finite_(const at::Tensor& param, const at::Tensor& update,
                      const std::function<at::Tensor()>& fallback, DeferredCount* count) {
  if (!update.is_cpu()) {
    const at::Tensor finite = at::isfinite(update).all();
    param.sub_(at::where(finite, update, finite_part(fallback())));
    if (count != nullptr) count->add(finite.logical_not());
    return;
  }
  if (all_finite(update)) {
    param.sub_(update);
    return;
  }
  param.sub_(finite_part(fallback()));
  if (count != nullptr) count->add(1);
}

void repair_state(ParamState& state, const ParamState& fresh) {
  for (size_t k = 0; k < state.size(); ++k) {
    if (!state[k].is_floating_point() || state[k].numel() == 0) continue;
    state[k] = at::where(at::isfinite(state[k]), state[k], fresh[k]);
  }
}

}  // namespace mnemosyne::optim
