#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "mnemosyne/core/named_tensors.h"
#include "mnemosyne/core/pool.h"
#include "mnemosyne/nn/module_tensors.h"

namespace mnemosyne::nn {

/// A module that runs with other tensors in place of its parameters and buffers, as
/// torch.func.functional_call has it: what it computes is a function of those tensors, for autograd
/// of any order and for tracers and transforms too, and nothing is copied.
///
///     const nn::FunctionalModule dense(nn::Dense(4, 3, true, seed).ptr());
///     at::Tensor y = dense.call({{"weight", w}, {"bias", b}}, [&](torch::nn::Module& module) {
///       return module.as<nn::DenseImpl>()->forward(x);
///     });
///
/// Each call has a module of its own, the given one or a clone: any number of threads may call, and
/// calls may stand within calls. What is not given is the module's own. The module may not be
/// changed or run otherwise from then on.
///
/// A module with parts that are not of the library (torch::nn::Linear) is cloned, numbers and all,
/// for every call that autograd records, and takes plain tensors only (`ModuleTensors`).
class FunctionalModule {
 public:
  explicit FunctionalModule(std::shared_ptr<torch::nn::Module> module);

  /// Dotted names of all parameters, then of all buffers.
  const std::vector<std::string>& names() const { return names_; }

  /// Where names stand among `names()`; InputError for a name that is not there.
  std::vector<size_t> places(const std::vector<std::string>& names) const;

  /// Calls `run` with the module while it has `tensors`, each at one of the `places` of names.
  /// c10::Error for another number of them, or another shape.
  template <typename Run>
  auto call(const std::vector<size_t>& places, at::TensorList tensors, const Run& run) const {
    const Call call(*this, places, tensors);
    return run(call.module());
  }

  /// The same, by names.
  template <typename Run>
  auto call(const NamedTensors& tensors, const Run& run) const {
    std::vector<std::string> names;
    std::vector<at::Tensor> list;
    for (const auto& [name, tensor] : tensors) {
      names.push_back(name);
      list.push_back(tensor);
    }
    return call(places(names), list, run);
  }

 private:
  struct Instance;

  /// While it lives, a module has other tensors.
  class Call {
   public:
    Call(const FunctionalModule& whole, const std::vector<size_t>& places, at::TensorList tensors);
    ~Call();
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    torch::nn::Module& module() const;

   private:
    Pool<Instance>::Loan instance_;
    bool records_ = false;
  };

  std::shared_ptr<torch::nn::Module> module_;
  std::vector<std::string> names_;
  std::shared_ptr<Pool<Instance>> pool_;
};

}  // namespace mnemosyne::nn
