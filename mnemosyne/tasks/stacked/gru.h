#pragma once

#include <ATen/core/Tensor.h>

#include "mnemosyne/tasks/stacked/param_list.h"

namespace mnemosyne::tasks {

/// The hidden states [P,T,B,H] of a GRU over T steps from a zero state, for P members.
///
/// `input_gates` [P,T,B,3*H] are W_ih x + b_ih with the gates in torch's order (reset, update,
/// new), `recurrent` is W_hh [P,3*H,H] and b_hh [P,3*H]:
///
///     r, z = sigmoid(input + hidden);  n = tanh(input + r * hidden);  h = (1 - z) * n + z * h
///
/// One autograd node for the whole sequence, with its gradient by hand: some forty calls a step
/// become five. First derivatives only. On other devices than the CPU the reference.
at::Tensor stacked_gru(const at::Tensor& input_gates, const Affine& recurrent);

/// The same step by step in plain ATen: the specification.
at::Tensor stacked_gru_reference(const at::Tensor& input_gates, const Affine& recurrent);

}  // namespace mnemosyne::tasks
