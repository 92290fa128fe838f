#pragma once

#include <ATen/FuncTorchTLS.h>

#include <memory>
#include <utility>

namespace mnemosyne::ops {

/// Before its forward pass torch::autograd::Function looks for transforms of torch.func and refuses
/// them, as it cannot know what that pass will do. One that calls nothing but operators, which the
/// transforms take apart, hides them from that look, and shows them first thing in its forward
/// pass.
class HiddenTransforms {
 public:
  HiddenTransforms() : hidden_(std::move(at::functorch::functorchTLSAccessor())) {}
  ~HiddenTransforms() { show(); }
  HiddenTransforms(const HiddenTransforms&) = delete;
  HiddenTransforms& operator=(const HiddenTransforms&) = delete;

  void show() {
    if (hidden_) at::functorch::functorchTLSAccessor() = std::move(hidden_);
  }

 private:
  std::unique_ptr<at::functorch::FuncTorchTLSBase> hidden_;
};

}  // namespace mnemosyne::ops
