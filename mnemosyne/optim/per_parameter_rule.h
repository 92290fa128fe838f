#pragma once

#include "mnemosyne/optim/update_rule.h"

namespace mnemosyne::optim {

/// A hand-designed rule that treats every parameter by itself: one function gives the pure and the
/// in-place form, so that the two agree bit for bit. Gradients are constants to it: nothing is
/// recorded for autograd.
class PerParameterRule : public UpdateRule {
 public:
  std::shared_ptr<const UpdateRule> elementwise() const override { return nullptr; }

 protected:
  UpdateResult do_update(at::TensorList grads, const State& state, at::TensorList params,
                         const StepOptions& options) const override;
  void do_step_(at::TensorList grads, State& state, at::TensorList params,
                const StepOptions& options, const std::vector<double>& shrink) const override;

  /// The update of one parameter that is not empty. `grad` and `param` are in the compute dtype and
  /// only read; `state` is written in place, its step counter has counted this step already. The
  /// result is a new tensor, without weight decay.
  virtual at::Tensor update_one(const at::Tensor& grad, ParamState& state, const at::Tensor& param,
                                const StepOptions& options) const = 0;

  /// `update_one` on tensors of any dtype, the parameter's changed in place.
  void step_one_(const at::Tensor& grad, ParamState& state, const at::Tensor& param,
                 const StepOptions& options, double shrink) const;
};

/// Counts one more step.
void count_step(ParamState& state);

/// True where kernels that walk through memory may be used: all four dense, contiguous and of one
/// dtype (float32 or float64) and device. Undefined tensors are ignored.
bool fusable(const at::Tensor& param, const at::Tensor& grad, const at::Tensor& first_state = {},
             const at::Tensor& second_state = {});

}  // namespace mnemosyne::optim
