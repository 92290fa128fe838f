#include "mnemosyne/ops/device_check.h"

#include <ATen/TensorOperators.h>
#include <ATen/functorch/BatchedTensorImpl.h>
#include <ATen/functorch/TensorWrapper.h>
#include <ATen/ops/_assert_async.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

namespace mnemosyne::ops {
namespace {

using c10::DispatchKey;

/// While it lives, operators are not seen by the transforms of torch.func.
class NoTransforms {
  c10::impl::ExcludeDispatchKeyGuard guard_{c10::DispatchKeySet(
      {DispatchKey::FuncTorchDynamicLayerFrontMode, DispatchKey::FuncTorchDynamicLayerBackMode})};
};

}  // namespace

at::Tensor unwrapped(const at::Tensor& x) {
  if (auto* batched = at::functorch::maybeGetBatchedImpl(x)) return unwrapped(batched->value());
  if (auto* wrapper = at::functorch::maybeGetTensorWrapper(x)) return unwrapped(wrapper->value());
  return x;
}

bool is_traced(const at::Tensor& x) {
  return unwrapped(x).key_set().has_any(
      c10::DispatchKeySet({DispatchKey::Python, DispatchKey::Functionalize}));
}

double largest_number(const at::Tensor& x) {
  const NoTransforms numbers_of_all;
  return unwrapped(x).max().item<double>();
}

void check_at_most(const at::Tensor& number, double limit, const std::string& expected,
                   const std::string& what) {
  if (number.is_meta()) return;
  at::Tensor value = number.detach();
  const NoTransforms numbers_of_all;
  value = unwrapped(value);
  if (value.numel() == 0) return;
  if (value.dim() > 0) value = value.max();
  if (value.is_cuda() || is_traced(value)) {
    at::_assert_async((value > limit).logical_not(), expected);
    return;
  }
  const double read = value.item<double>();
  TORCH_CHECK(!(read > limit), expected, ", got ", what, read);
}

}  // namespace mnemosyne::ops
