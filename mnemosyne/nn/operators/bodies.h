#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <string>
#include <vector>

namespace mnemosyne::nn {

/// What an operator computes with a module that has the operator's tensors: from its other tensors
/// `x`, in the order of the schema, and its flag to its results. Optional ones that are not there
/// are undefined, in `x` and among the results. The module is null where the operator has none.
using OperatorBody = std::vector<at::Tensor> (*)(const torch::nn::Module* module,
                                                 const std::vector<at::Tensor>& x, bool flag);

/// Of torch.ops.mnemosyne.<name>; InputError where there is none.
OperatorBody operator_body(const std::string& name);

}  // namespace mnemosyne::nn
