#include "mnemosyne/nn/operators/opaque_call.h"

#include <algorithm>

#include "mnemosyne/nn/described_module.h"
#include "mnemosyne/nn/operators/bodies.h"
#include "mnemosyne/ops/device_check.h"

namespace mnemosyne::nn {
namespace {

bool is_symbolic(const at::Tensor& x) {
  return x.defined() && x.unsafeGetTensorImpl()->has_symbolic_sizes_strides();
}

}  // namespace

std::vector<at::Tensor> compute(const OperatorCall& call) {
  const OperatorBody body = operator_body(call.name);
  if (call.module.empty()) return body(nullptr, call.inputs, call.flag);
  const auto described = described_module(call.module);
  return described->module.call(
      described->places, call.tensors,
      [&](const torch::nn::Module& module) { return body(&module, call.inputs, call.flag); });
}

bool has_to_be_opaque(const OperatorCall& call) {
  if (std::any_of(call.inputs.begin(), call.inputs.end(), is_symbolic)) return true;
  if (call.module.empty() || call.inputs.empty()) return false;
  return ops::is_traced(call.inputs[0]) && described_module(call.module)->follows_input;
}

}  // namespace mnemosyne::nn
