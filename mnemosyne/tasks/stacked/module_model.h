#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>

#include "mnemosyne/tasks/stacked/model.h"

namespace torch::nn {
class Module;
}

namespace mnemosyne::tasks {

/// A module and how it is called.
struct Network {
  std::shared_ptr<torch::nn::Module> module;
  /// Inputs [B, ...] to outputs [N,out], with the parameters that the module has at that moment.
  std::function<at::Tensor(const at::Tensor& inputs)> forward;
};

/// A fresh network. Where its initial values are drawn from torch's global generator, that one has
/// been set to the seed; a module with a source of its own takes the seed itself.
using NetworkFactory = std::function<Network(uint64_t seed)>;

/// Any torch::nn::Module as a model, so that tasks, tuning grids and `mnemosyne train` take it:
///
///     auto model = make_module_model([](uint64_t) {
///       torch::nn::Linear linear(64, 10);
///       return Network{linear.ptr(), [linear](const at::Tensor& x) mutable { return linear(x); }};
///     });
///     auto task = make_classification("linear_digits", model, digits());
///
/// Names and order of the parameters are those of `named_parameters()`; one without dimensions
/// becomes [1]. They have to be float32 and are made on the CPU; a call computes where the
/// parameters that it is given are, on a copy of the module there.
///
/// `loss` runs the members one after the other, forward and at once backward, on a module whose
/// parameters are views of the member's: nothing that one member does reaches another, and only one
/// graph is alive at a time. Its gradients cannot be differentiated again. `forward` gives values
/// without a graph.
///
/// Buffers are no parameters: all members, seeds and threads have those of `factory(0)`, such as
/// the random features of an attention. Modules run in eval mode: no dropout, no statistics of
/// batches.
///
/// Several threads may share the model; each that is inside a call has a module of its own.
/// Building one sets and restores torch's global generator, under a lock of this class: code
/// outside the library that draws from it in another thread at that moment changes the values.
///
/// InputError when the factory gives no module, no parameter, or one of another type.
std::shared_ptr<const Model> make_module_model(NetworkFactory factory);

}  // namespace mnemosyne::tasks
