#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "mnemosyne/core/error.h"

namespace mnemosyne::python {

/// A module of the library while one of Python grows from it: options, tensors, children.
///
/// Tensors then live in Python, and what is C++ gets them with each call of an operator
/// (nn/operators/register.cpp). Layers, `Dense` and `Norm`, are not among them: Python has torch's
/// own layers in their place and calls these, so that users can hook, wrap and replace them.
class ModuleHandle {
 public:
  explicit ModuleHandle(std::shared_ptr<torch::nn::Module> module) : module_(std::move(module)) {}

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
  std::shared_ptr<torch::nn::Module> module_;
};

}  // namespace mnemosyne::python
