#pragma once

#include "mnemosyne/optim/per_parameter_rule.h"

namespace mnemosyne::optim {

struct AdamOptions {
  double beta1 = 0.9;         ///< Decay of the mean of gradients, in [0, 1).
  double beta2 = 0.999;       ///< Decay of the mean of squared gradients, in [0, 1).
  double eps = 1e-8;          ///< Added to the root, at least 0.
  double weight_decay = 0.0;  ///< Of steps whose StepOptions name none; at least 0.
};

/// Adam and AdamW, as `torch.optim.Adam` and `torch.optim.AdamW`:
///
///     m_t = beta1 m_{t-1} + (1 - beta1) g_t                     m_0 = 0
///     v_t = beta2 v_{t-1} + (1 - beta2) g_t^2                   v_0 = 0
///     p_t = p_{t-1} - lr (m_t / (1 - beta1^t)) / (sqrt(v_t / (1 - beta2^t)) + eps)
///                   - lr weight_decay p_{t-1}
///
/// One class: the weight decay of every rule is decoupled, so the two differ by its default, which
/// is 0 for "adam" and .01, as torch's, for "adamw". State: step, m, v (8 bytes per float32
/// parameter).
///
///     auto rule = optim::make_rule("adamw", R"({"beta2": 0.95})");
///
/// Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015; Loshchilov and Hutter,
/// "Decoupled weight decay regularization", ICLR 2019. Throws InputError for options out of range.
class Adam : public PerParameterRule {
 public:
  explicit Adam(const AdamOptions& options = {}, std::string name = "adam");

  std::string name() const override { return name_; }
  std::string options_json() const override;
  StateLayout state_layout(const at::Tensor& param) const override;
  double default_lr() const override { return 1e-3; }
  double default_weight_decay() const override { return options_.weight_decay; }
  std::optional<double> default_momentum() const override { return options_.beta1; }

  /// In place through torch's fused kernel where tensors are dense, in one call for all of them.
  void do_step_(at::TensorList grads, State& state, at::TensorList params,
                const StepOptions& options, const std::vector<double>& shrink) const override;

  at::Tensor update_one(const at::Tensor& grad, ParamState& state, const at::Tensor& param,
                        const StepOptions& options) const override;

 private:
  AdamOptions options_;
  std::string name_;
};

/// Registry entries "adam" and "adamw".
std::shared_ptr<UpdateRule> make_adam(const std::string& options_json);
std::shared_ptr<UpdateRule> make_adamw(const std::string& options_json);

}  // namespace mnemosyne::optim
