#pragma once

#include <c10/core/DispatchKeySet.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

namespace mnemosyne::python {

/// While it lives, operators are neither recorded by torch.jit.trace nor seen by torch.func and
/// modes of Python (fake tensors, torch.export), and tensors are of use after inference mode: what
/// is made is numbers to keep, not a step of a program.
class Untraced {
  c10::impl::ExcludeDispatchKeyGuard guard_{c10::DispatchKeySet(
      {c10::DispatchKey::Tracer, c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot,
       c10::DispatchKey::Functionalize, c10::DispatchKey::FuncTorchDynamicLayerFrontMode,
       c10::DispatchKey::FuncTorchDynamicLayerBackMode})};
  c10::InferenceMode no_inference_{false};
};

}  // namespace mnemosyne::python
