#pragma once

#include <c10/core/DispatchKeySet.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

namespace mnemosyne::ops {

/// While it lives, operators are neither recorded by torch.jit.trace nor seen by torch.func and
/// modes of Python (fake tensors, torch.export), and tensors are of use after inference mode: what
/// is made is numbers to keep, not a step of a program. Nothing is made on the meta device, either,
/// which is where everything goes while the shapes of a step are found out.
class Untraced {
  static c10::DispatchKeySet hidden() {
    return c10::DispatchKeySet(
        {c10::DispatchKey::Tracer, c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot,
         c10::DispatchKey::Functionalize, c10::DispatchKey::FuncTorchDynamicLayerFrontMode,
         c10::DispatchKey::FuncTorchDynamicLayerBackMode, c10::DispatchKey::FuncTorchVmapMode});
  }
  static c10::impl::LocalDispatchKeySet here() { return c10::impl::tls_local_dispatch_key_set(); }

  c10::impl::ForceDispatchKeyGuard guard_{
      here().included_.remove_backend(c10::BackendComponent::MetaBit) - hidden(),
      here().excluded_ | hidden()};
  c10::InferenceMode no_inference_{false};
};

}  // namespace mnemosyne::ops
