#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "mnemosyne/core/error.h"

namespace mnemosyne::python {

/// c10::Error for what a C++ module cannot compute with: wrappers of torch.func and of tracers.
void check_is_plain(const at::Tensor& x);

/// A module of the library as the package holds it: its tensors are those of Python.
///
/// Layers, `Dense` and `Norm`, are not among them: Python has torch's own layers in their place and
/// calls these, so that users can hook, wrap and replace them.
///
/// Parameters live in Python as `torch.nn.Parameter`s. A module is *tied* to them when each of its
/// own tensors shares the memory and the version counter of the tensor of Python, and has its
/// gradient edge: what the module computes then is, for autograd, a function of Python's tensors,
/// whether these are leaves or results.
class ModuleHandle {
 public:
  explicit ModuleHandle(std::shared_ptr<torch::nn::Module> module) : module_(std::move(module)) {}

  /// This handle when it is tied to `tensors` (parameters, then buffers, in the order of `names`),
  /// else one of a copy that is. Never the same module with other tensors, which a graph may need.
  std::shared_ptr<ModuleHandle> tied(const std::vector<at::Tensor>& tensors);

  /// Dotted names of all parameters, then of all buffers, without those of layers.
  std::vector<std::string> names() const;

  /// The parameters of a layer, which keeps none.
  std::vector<std::pair<std::string, at::Tensor>> take_parameters() const;

  /// Its own tensors, without those of its children.
  std::vector<std::pair<std::string, at::Tensor>> parameters() const;
  std::vector<std::pair<std::string, at::Tensor>> buffers() const;
  std::vector<std::pair<std::string, std::shared_ptr<ModuleHandle>>> children() const;

  std::string kind() const { return module_->name(); }
  torch::nn::Module& module() const { return *module_; }

  template <typename Module>
  Module& as() const {
    auto* found = dynamic_cast<Module*>(module_.get());
    if (found == nullptr) throw InputError("[module] expected another kind, got " + kind());
    return *found;
  }

 private:
  /// By dotted name: all parameters, then all buffers, without those of layers.
  std::vector<std::pair<std::string, at::Tensor>> tensors() const;

  std::shared_ptr<torch::nn::Module> module_;
};

}  // namespace mnemosyne::python
