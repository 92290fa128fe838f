#include "mnemosyne/optim/step_outputs.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/where.h>

namespace mnemosyne::optim {
namespace {

constexpr double kLogBlendBound = 1.5;  // the log blend moves by at most this
constexpr double kReadoutScale = 2.0;
constexpr double kLargestDecay = 1.0;  // in units of the step size

/// An output by its tanh [C]; those without a function are read-outs, in the order of `ops`.
struct Output {
  const char* name;
  void (*apply)(const at::Tensor& tanh_z, const OutputBounds&, ops::StepCorrection&) = nullptr;
};

const std::vector<Output>& outputs() {
  using Tanh = const at::Tensor&;
  using Bounds = const OutputBounds&;
  using Correction = ops::StepCorrection&;
  static const std::vector<Output> list = {
      {"step", [](Tanh z, Bounds b, Correction c) { c.step = at::exp(b.step * z); }},
      {"blend", [](Tanh z, Bounds, Correction c) { c.blend = at::exp(kLogBlendBound * z); }},
      {"mixture", [](Tanh z, Bounds b, Correction c) { c.mixture = b.mixture * z; }},
      {"agreement_momentum"},
      {"agreement_gradient"},
      {"adam_size"},
      {"direction_size"},
      {"second_moment"},
      // Only shrinks; the slope at zero is that of z > 0, else nothing could be learned from there.
      {"decay",
       [](Tanh z, Bounds, Correction c) { c.decay = kLargestDecay * at::where(z >= 0, z, 0.0); }},
  };
  return list;
}

}  // namespace

ops::StepCorrection step_correction(const at::Tensor& z, const OutputBounds& bounds) {
  TORCH_CHECK(z.dim() == 2 && z.size(1) == static_cast<int64_t>(outputs().size()),
              "[step_correction] expected z of shape [C, ", outputs().size(), "], got ", z.sizes());
  ops::StepCorrection correction;
  std::vector<at::Tensor> readouts;
  const std::vector<at::Tensor> columns = z.unbind(1), bounded = at::tanh(z).unbind(1);
  for (size_t k = 0; k < columns.size(); ++k) {
    const Output& output = outputs()[k];
    if (output.apply != nullptr) {
      output.apply(bounded[k], bounds, correction);
    } else {
      readouts.push_back(columns[k]);
    }
  }
  correction.readouts = kReadoutScale * at::stack(readouts, 1);
  return correction;
}

const std::vector<std::string>& step_output_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> result;
    for (const Output& output : outputs()) result.push_back(output.name);
    return result;
  }();
  return names;
}

}  // namespace mnemosyne::optim
