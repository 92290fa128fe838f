#pragma once

#include "mnemosyne/optim/per_parameter_rule.h"

namespace mnemosyne::optim {

struct SgdOptions {
  double momentum = 0.9;  ///< In [0, 1); 0 keeps no state.
  bool nesterov = false;  ///< Needs a momentum.
};

/// Stochastic gradient descent with momentum, as `torch.optim.SGD` without dampening:
///
///     m_t = momentum m_{t-1} + g_t                              m_0 = 0
///     d_t = g_t + momentum m_t   (nesterov)   or   m_t
///     p_t = p_{t-1} - lr d_t - lr weight_decay p_{t-1}
///
/// The weight decay is decoupled like that of every rule here (torch's SGD adds it to the
/// gradient). State: step, momentum (4 bytes per float32 parameter).
///
///     auto rule = optim::make_rule("sgd", R"({"momentum": 0.9, "nesterov": true})");
///
/// Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML
/// 2013. Throws InputError for options out of range.
class Sgd : public PerParameterRule {
 public:
  explicit Sgd(const SgdOptions& options = {});

  std::string name() const override { return "sgd"; }
  std::string options_json() const override;
  StateLayout state_layout(const at::Tensor& param) const override;
  double default_lr() const override { return 0.1; }

  std::optional<double> default_momentum() const override;

 protected:
  /// In place through torch's fused kernel where tensors are dense, in one call for all of them.
  void do_step_(at::TensorList grads, State& state, at::TensorList params,
                const StepOptions& options, const std::vector<double>& shrink) const override;
  at::Tensor update_one(const at::Tensor& grad, ParamState& state, const at::Tensor& param,
                        const StepOptions& options) const override;

 private:
  SgdOptions options_;
};

/// Registry entry "sgd".
std::shared_ptr<UpdateRule> make_sgd(const std::string& options_json);

}  // namespace mnemosyne::optim
