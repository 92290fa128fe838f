#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include "mnemosyne/ops/autocast.h"

namespace mnemosyne::ops {
namespace {

// As scaled_dot_product_attention: queries, keys and values in the dtype of autocast.
constexpr size_t kNumCast = 3;

void linear_attention(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const size_t first = stack->size() - op.schema().arguments().size();
  for (size_t i = first; i < first + kNumCast; ++i) {
    (*stack)[i] = to_autocast_dtype((*stack)[i].toTensor());
  }
  const NoAutocast as_it_is_below;  // only now: autocast counts as disabled while this lives
  op.callBoxed(stack);
}

}  // namespace

TORCH_LIBRARY_IMPL(mnemosyne, AutocastCPU, library) {
  library.impl("linear_attention", torch::CppFunction::makeFromBoxedFunction<&linear_attention>());
}

TORCH_LIBRARY_IMPL(mnemosyne, AutocastCUDA, library) {
  library.impl("linear_attention", torch::CppFunction::makeFromBoxedFunction<&linear_attention>());
}

}  // namespace mnemosyne::ops
