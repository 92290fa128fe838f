#include "mnemosyne/ops/each_example.h"

#include <ATen/core/List.h>
#include <ATen/functorch/BatchedTensorImpl.h>
#include <ATen/functorch/DynamicLayer.h>
#include <ATen/functorch/VmapInterpreter.h>
#include <ATen/ops/stack.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <functional>
#include <optional>
#include <utility>
#include <vector>

namespace mnemosyne::ops {
namespace {

using torch::jit::IValue;
using torch::jit::Stack;

/// `change` of every tensor in an argument or a result: alone, absent, or in a list.
IValue with_each_tensor(const IValue& value,
                        const std::function<at::Tensor(const at::Tensor&)>& change) {
  if (value.isTensor()) return value.toTensor().defined() ? change(value.toTensor()) : value;
  if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor& x : value.toTensorVector()) list.push_back(change(x));
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> list;
    for (const std::optional<at::Tensor>& x : value.toOptionalTensorVector()) {
      list.push_back(x.has_value() && x->defined() ? std::optional(change(*x)) : x);
    }
    return list;
  }
  return value;
}

/// The example `index` of a tensor at a level of torch.func.vmap.
at::Tensor example(const at::Tensor& x, int64_t level, int64_t index) {
  const auto* batched = at::functorch::maybeGetBatchedImpl(x);
  if (batched == nullptr || batched->level() != level) return x;
  return batched->value().select(batched->bdim(), index);
}

std::vector<at::Tensor> tensors_of(const IValue& value) {
  return value.isTensor() ? std::vector<at::Tensor>{value.toTensor()} : value.toTensorVector();
}

}  // namespace

void each_example(const c10::OperatorHandle& op, Stack* stack) {
  const auto layer = at::functorch::maybeCurrentDynamicLayer();
  TORCH_INTERNAL_ASSERT(layer.has_value());
  const int64_t level = layer->layerId();
  const int64_t examples = at::functorch::VmapInterpreterPtr(&layer->interpreter())
                               .batchSize()
                               .guard_int(__FILE__, __LINE__);
  TORCH_CHECK(examples > 0, "[vmap] expected at least one example, got none");
  const size_t count = op.schema().arguments().size(), results = op.schema().returns().size();
  const Stack arguments(stack->end() - static_cast<std::ptrdiff_t>(count), stack->end());
  torch::jit::drop(*stack, count);
  const c10::impl::ExcludeDispatchKeyGuard below(c10::DispatchKey::FuncTorchBatched);
  std::vector<Stack> outcomes;
  for (int64_t i = 0; i < examples; ++i) {
    Stack call;
    for (const IValue& argument : arguments) {
      call.push_back(
          with_each_tensor(argument, [&](const at::Tensor& x) { return example(x, level, i); }));
    }
    op.callBoxed(&call);
    outcomes.push_back(std::move(call));
  }
  for (size_t result = 0; result < results; ++result) {
    std::vector<std::vector<at::Tensor>> all;
    for (const Stack& outcome : outcomes) all.push_back(tensors_of(outcome[result]));
    c10::List<at::Tensor> joined;
    for (size_t i = 0; i < all[0].size(); ++i) {
      std::vector<at::Tensor> same;
      for (const auto& of_example : all) same.push_back(of_example[i]);
      joined.push_back(at::functorch::makeBatched(at::stack(same), 0, level));
    }
    if (outcomes[0][result].isTensor()) {
      stack->push_back(joined.get(0));
    } else {
      stack->push_back(joined);
    }
  }
}

}  // namespace mnemosyne::ops
