#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/tanh.h>

#include "mnemosyne/ops/lstm_step/lstm_step.h"

namespace mnemosyne::ops {

at::Tensor lstm_step_reference(const at::Tensor& features, LstmState& state,
                               const LstmWeights& weights) {
  at::Tensor input = features;
  for (size_t layer = 0; layer < 2; ++layer) {
    at::Tensor& hidden = state[2 * layer];
    at::Tensor& cell = state[2 * layer + 1];
    const at::Tensor stacked = at::cat({input, hidden});
    const std::vector<at::Tensor> gates =
        at::addmm(weights.biases[layer].unsqueeze(1), weights.matrices[layer], stacked).chunk(4);
    cell = at::sigmoid(gates[1]) * cell + at::sigmoid(gates[0]) * at::tanh(gates[2]);
    hidden = at::sigmoid(gates[3]) * at::tanh(cell);
    input = hidden;
  }
  return at::addmm(weights.output_bias.unsqueeze(1), weights.output_weight, input).squeeze(0);
}

}  // namespace mnemosyne::ops
