#include "mnemosyne/tasks/stacked/gru.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/add.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <vector>

namespace mnemosyne::tasks {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// P = members, T = steps, B = batch, H = hidden.

/// The pointwise part of one step's gradient, for one row of H units. In: the gradient of the new
/// state and what the step computed. Out: gradients of both gate inputs [3*H], and the part of the
/// old state's that does not go through the gates, in place of the gradient of the new one.
template <typename T>
void row_gradient(int64_t hidden, const T* gates, const T* hidden_new, const T* old_state,
                  T* grad_state, T* grad_input, T* grad_hidden) {
  const T *r = gates, *z = gates + hidden, *n = gates + 2 * hidden;
  for (int64_t i = 0; i < hidden; ++i) {
    const T grad = grad_state[i];
    const T grad_n = grad * (1 - z[i]) * (1 - n[i] * n[i]);
    const T grad_z = grad * (old_state[i] - n[i]) * z[i] * (1 - z[i]);
    const T grad_r = grad_n * hidden_new[i] * r[i] * (1 - r[i]);
    grad_input[i] = grad_hidden[i] = grad_r;
    grad_input[hidden + i] = grad_hidden[hidden + i] = grad_z;
    grad_input[2 * hidden + i] = grad_n;
    grad_hidden[2 * hidden + i] = grad_n * r[i];
    grad_state[i] = grad * z[i];
  }
}

/// `row_gradient` for all P x B rows of step t; all tensors [P,T,B,...] but grad_state [P,B,H],
/// contiguous.
void step_gradient(int64_t t, const at::Tensor& gates, const at::Tensor& hidden_new,
                   const at::Tensor& states, const at::Tensor& grad_state,
                   const at::Tensor& grad_input, const at::Tensor& grad_hidden) {
  const int64_t members = gates.size(0), steps = gates.size(1), batch = gates.size(2);
  const int64_t hidden = hidden_new.size(3);
  AT_DISPATCH_FLOATING_TYPES(gates.scalar_type(), "stacked_gru", [&] {
    for (int64_t p = 0; p < members; ++p) {
      for (int64_t b = 0; b < batch; ++b) {
        const int64_t row = (p * steps + t) * batch + b;
        const int64_t old_row = (p * (steps + 1) + t) * batch + b;
        row_gradient<scalar_t>(hidden, gates.const_data_ptr<scalar_t>() + row * 3 * hidden,
                               hidden_new.const_data_ptr<scalar_t>() + row * hidden,
                               states.const_data_ptr<scalar_t>() + old_row * hidden,
                               grad_state.mutable_data_ptr<scalar_t>() + (p * batch + b) * hidden,
                               grad_input.mutable_data_ptr<scalar_t>() + row * 3 * hidden,
                               grad_hidden.mutable_data_ptr<scalar_t>() + row * 3 * hidden);
      }
    }
  });
}

class Gru : public torch::autograd::Function<Gru> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input_gates,
                            const at::Tensor& weight, const at::Tensor& bias) {
    const int64_t members = input_gates.size(0), steps = input_gates.size(1);
    const int64_t batch = input_gates.size(2), hidden = weight.size(2);
    const at::TensorOptions options = input_gates.options();
    const at::Tensor gates = at::empty({members, steps, batch, 3 * hidden}, options);
    const at::Tensor hidden_new = at::empty({members, steps, batch, hidden}, options);
    const at::Tensor states = at::zeros({members, steps + 1, batch, hidden}, options);
    at::Tensor hidden_gates = at::empty({members, batch, 3 * hidden}, options);
    const at::Tensor expanded_bias = bias.unsqueeze(1), transposed = weight.transpose(1, 2);
    for (int64_t t = 0; t < steps; ++t) {
      const at::Tensor state = states.select(1, t), input = input_gates.select(1, t);
      at::baddbmm_out(hidden_gates, expanded_bias, state, transposed);
      at::Tensor reset_update = gates.select(1, t).narrow(2, 0, 2 * hidden);
      at::add_out(reset_update, input.narrow(2, 0, 2 * hidden),
                  hidden_gates.narrow(2, 0, 2 * hidden));
      reset_update.sigmoid_();
      at::Tensor kept = hidden_new.select(1, t);
      kept.copy_(hidden_gates.narrow(2, 2 * hidden, hidden));
      at::Tensor fresh = gates.select(1, t).narrow(2, 2 * hidden, hidden);
      at::addcmul_out(fresh, input.narrow(2, 2 * hidden, hidden), reset_update.narrow(2, 0, hidden),
                      kept);
      fresh.tanh_();
      at::Tensor next = states.select(1, t + 1);
      at::lerp_out(next, fresh, state, reset_update.narrow(2, hidden, hidden));
    }
    context->save_for_backward({weight, gates, hidden_new, states});
    return states.narrow(1, 1, steps).clone();
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &weight = saved[0], &gates = saved[1], &hidden_new = saved[2],
                     &states = saved[3];
    const int64_t members = gates.size(0), steps = gates.size(1), batch = gates.size(2);
    const int64_t hidden = weight.size(2);
    const at::Tensor grad_input = at::empty_like(gates), grad_hidden = at::empty_like(gates);
    at::Tensor grad_state = at::zeros({members, batch, hidden}, gates.options());
    for (int64_t t = steps - 1; t >= 0; --t) {
      grad_state.add_(grads[0].select(1, t));
      step_gradient(t, gates, hidden_new, states, grad_state, grad_input, grad_hidden);
      grad_state.baddbmm_(grad_hidden.select(1, t), weight);
    }
    const at::Tensor rows = grad_hidden.view({members, steps * batch, 3 * hidden});
    const at::Tensor old_states =
        states.narrow(1, 0, steps).reshape({members, steps * batch, hidden});
    return {grad_input, at::bmm(rows.transpose(1, 2), old_states), rows.sum(1)};
  }
};

void check(const at::Tensor& input_gates, const Affine& recurrent) {
  TORCH_CHECK(input_gates.dim() == 4 && input_gates.size(3) == 3 * recurrent.weight.size(2),
              "[stacked_gru] expected input gates [P,T,B,", 3 * recurrent.weight.size(2), "], got ",
              input_gates.sizes());
}

}  // namespace

at::Tensor stacked_gru_reference(const at::Tensor& input_gates, const Affine& recurrent) {
  check(input_gates, recurrent);
  const int64_t members = input_gates.size(0), batch = input_gates.size(2);
  const int64_t hidden = recurrent.weight.size(2);
  const at::Tensor bias = recurrent.bias.unsqueeze(1), weight = recurrent.weight.transpose(1, 2);
  at::Tensor state = at::zeros({members, batch, hidden}, input_gates.options());
  std::vector<at::Tensor> states;
  for (const at::Tensor& input : input_gates.unbind(1)) {
    const at::Tensor gates = at::baddbmm(bias, state, weight);
    const auto part = [&](const at::Tensor& all, int64_t which) {
      return all.narrow(2, which * hidden, hidden);
    };
    const at::Tensor reset = part(input, 0).add(part(gates, 0)).sigmoid();
    const at::Tensor update = part(input, 1).add(part(gates, 1)).sigmoid();
    const at::Tensor fresh = part(input, 2).add(reset.mul(part(gates, 2))).tanh();
    state = at::lerp(fresh, state, update);
    states.push_back(state);
  }
  return at::stack(states, 1);
}

at::Tensor stacked_gru(const at::Tensor& input_gates, const Affine& recurrent) {
  check(input_gates, recurrent);
  if (!input_gates.is_cpu()) return stacked_gru_reference(input_gates, recurrent);
  return Gru::apply(input_gates, recurrent.weight, recurrent.bias);
}

}  // namespace mnemosyne::tasks
