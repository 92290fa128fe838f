#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <vector>

namespace mnemosyne::ops {

// N = coordinates, H = hidden units, F = features, I = inputs of a layer (F, then H).

/// Two LSTM layers and a linear output. Gates in torch's order: input, forget, candidate, output.
struct LstmWeights {
  std::array<at::Tensor, 2> matrices;  ///< [4H, I + H]: input weights beside recurrent ones
  std::array<at::Tensor, 2> biases;    ///< [4H]
  at::Tensor output_weight;            ///< [1, H]
  at::Tensor output_bias;              ///< [1]
};

/// hidden 1, cell 1, hidden 2, cell 2, each [H, N].
using LstmState = std::array<at::Tensor, 4>;

/// One step of N independent coordinates that share the weights: for each layer with input x
///
///     i, f, g, o = matrix [x; h] + bias
///     c <- sigmoid(f) c + sigmoid(i) tanh(g)          h <- sigmoid(o) tanh(c)
///
/// and the output is output_weight h + output_bias of the second layer. features [F, N], the result
/// [N]; `state` is replaced, its tensors are not written. Differentiable in everything.
at::Tensor lstm_step_reference(const at::Tensor& features, LstmState& state,
                               const LstmWeights& weights);

/// Whether `lstm_step_` has a kernel for weights like these: float32, on the CPU, H <= 64, F <= 8.
bool lstm_step_is_fused(const LstmWeights& weights, int64_t num_features);

/// The same in place, without gradients, in one pass over the memory: no transient but the output.
/// states[k] are contiguous float32 tensors of N_k coordinates, whose features stand one after the
/// other in the columns of `features` [F, N_1 + N_2 + ...]; the result [N_1 + N_2 + ...] likewise.
/// Parallel over tensors and chunks of them.
at::Tensor lstm_step_(const at::Tensor& features, const std::vector<LstmState>& states,
                      const LstmWeights& weights);

}  // namespace mnemosyne::ops
