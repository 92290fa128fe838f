#pragma once

#include "mnemosyne/optim/per_parameter_rule.h"

namespace mnemosyne::optim {

struct ScheduleFreeOptions {
  double beta1 = 0.9;        ///< Interpolation between the average and the fast iterate, in (0, 1).
  double beta2 = 0.999;      ///< Decay of the mean of squared gradients, in [0, 1).
  double eps = 1e-8;         ///< Added to the root, at least 0.
  int64_t warmup_steps = 0;  ///< The learning rate grows linearly over so many steps.
  double lr_power = 2.0;  ///< An iterate's weight in the average: its learning rate to this power.
};

/// Schedule-Free AdamW: the average of the iterates in place of a schedule. Three points: z, the
/// fast iterate; x, its average, where the network is meant to be used; and y between them, where
/// gradients are taken. **The parameter is y**; `evaluation_params` gives x.
///
///     lr_t = lr min(1, t / warmup_steps)
///     w_t  = (lr_1, ..., lr_t at its largest)^lr_power,   c_t = w_t / (w_1 + ... + w_t)
///     v_t = beta2 v_{t-1} + (1 - beta2) g_t^2
///     d_t = g_t / (sqrt(v_t / (1 - beta2^t)) + eps) + weight_decay y_t
///     z_{t+1} = z_t - lr_t d_t                                  z_1 = y_1
///     y_{t+1} = (1 - c_t) y_t + c_t z_t - lr_t (1 - beta1 (1 - c_t)) d_t
///     x = (y - (1 - beta1) z) / beta1
///
/// x is extrapolated from y, so with bfloat16 parameters it is only as exact as these. State: step,
/// v, z (8 bytes per float32 parameter), weight_sum and largest_lr (float64 scalars on the CPU).
///
///     auto rule = optim::make_rule("schedule-free");
///     rule->step_(grads, state, params, {.lr = 3e-3});
///     auto averaged = rule->evaluation_params(state, params);
///
/// Defazio et al., "The road less scheduled", NeurIPS 2024, and its reference implementation.
/// Throws InputError for options out of range.
class ScheduleFree : public PerParameterRule {
 public:
  explicit ScheduleFree(const ScheduleFreeOptions& options = {});

  std::string name() const override { return "schedule-free"; }
  std::string options_json() const override;
  StateLayout state_layout(const at::Tensor& param) const override;
  ParamState init(const at::Tensor& param) const override;
  double default_lr() const override { return 2.5e-3; }
  std::vector<at::Tensor> evaluation_params(const State& state,
                                            at::TensorList params) const override;

 protected:
  /// Both y and z move by it.
  bool decays_itself() const override { return true; }

  /// Averages weigh each step by its learning rate.
  bool is_linear_in_lr() const override { return false; }

  at::Tensor update_one(const at::Tensor& grad, ParamState& state, const at::Tensor& param,
                        const StepOptions& options) const override;

 private:
  ScheduleFreeOptions options_;
};

/// Registry entry "schedule-free".
std::shared_ptr<UpdateRule> make_schedule_free(const std::string& options_json);

}  // namespace mnemosyne::optim
