#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace mnemosyne::nn {

/// A module that keeps its parameters and buffers in fields of its own, where a call can put others
/// in their place: every module of the library that has any.
class TensorFields {
 public:
  virtual ~TensorFields() = default;

  /// Every field that holds a parameter or a buffer of this module, without those of its children.
  virtual std::vector<at::Tensor*> tensor_fields() = 0;
};

/// The parameters and buffers of a module and of all its children as places that take other
/// tensors: all parameters, then all buffers, by their dotted names.
///
/// A module of the library computes with whatever is put there, tensors of tracers and transforms
/// included, and forgets it at `reset`. Another one, such as torch::nn::Linear, has no fields to
/// exchange: its own tensor takes over the memory and the gradient edge of a plain tensor, and a
/// graph that it made has to be gone before the next one is put there.
class ModuleTensors {
 public:
  explicit ModuleTensors(const std::shared_ptr<torch::nn::Module>& module);

  const std::vector<std::string>& names() const { return names_; }

  /// The memory of `other`, tensors of a module of the same kind, instead of that of its own.
  void share(const ModuleTensors& other);

  /// c10::Error for another shape than that of the module's own, and where the module is not of the
  /// library for tensors that are not plain.
  void set(size_t place, const at::Tensor& tensor);

  /// The module's own tensors again.
  void reset();

  /// Whether all of them are fields of modules of the library.
  bool are_fields() const;

 private:
  struct Own {
    at::Tensor tensor;
    at::Tensor memory;  // Of one that is no field: the same numbers, kept apart.
    std::vector<at::Tensor*> fields;
    bool requires_grad;
    bool changed = false;
  };

  std::string kind_;
  std::vector<std::string> names_;
  std::vector<Own> own_;
};

}  // namespace mnemosyne::nn
