#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

namespace mnemosyne::ops {

/// An operator under torch.func.vmap, for the dispatch key FuncTorchBatched: one example after the
/// other, whichever tensors have them. c10::Error where there is no example.
///
///     library.impl("x", torch::CppFunction::makeFromBoxedFunction<&ops::each_example>());
void each_example(const c10::OperatorHandle& op, torch::jit::Stack* stack);

}  // namespace mnemosyne::ops
