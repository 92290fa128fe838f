#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace mnemosyne::nn {

/// An operator of a module (bodies.h) with everything that it takes.
struct OperatorCall {
  std::string name;
  std::string module;               ///< Its description (described_module.h), or empty.
  std::vector<at::Tensor> tensors;  ///< Of the module.
  std::vector<at::Tensor> inputs;   ///< Undefined where an optional one is not there.
  bool flag = false;
};

/// Computes it, by operators of ATen and of this library.
std::vector<at::Tensor> compute(const OperatorCall& call);

/// The same as one operator, torch.ops.mnemosyne.call_module, which a traced program does not look
/// into: where a size is a symbol, and where what is computed follows the numbers of the input.
/// When the program runs that is the eager computation, with all its checks; its gradient computes
/// it once more.
std::vector<at::Tensor> compute_opaquely(const OperatorCall& call);

/// Whether `compute` cannot be traced with these tensors.
bool has_to_be_opaque(const OperatorCall& call);

}  // namespace mnemosyne::nn
