#pragma once

#include <string>

#include "mnemosyne/optim/adam.h"
#include "mnemosyne/optim/per_parameter_rule.h"

namespace mnemosyne::optim {

struct MuonOptions {
  double momentum = 0.95;  ///< In [0, 1).
  bool nesterov = true;
  int64_t num_iterations = 5;  ///< Newton-Schulz steps, 1 to 99.
  double adam_lr_ratio = 1.0;  ///< Learning rate of the tensors that Adam updates, over `lr`.
  double adam_beta1 = 0.9;     ///< In [0, 1).
  double adam_beta2 = 0.999;   ///< In [0, 1).
};

/// Muon on matrices and Adam on everything else, the way Muon is used: `torch.optim.Muon` with
/// `adjust_lr_fn="match_rms_adamw"` beside `torch.optim.AdamW`, one learning rate for both:
///
///     m_t = momentum m_{t-1} + (1 - momentum) g_t               m_0 = 0
///     d_t = (1 - momentum) g_t + momentum m_t   (nesterov)   or   m_t
///     p_t = p_{t-1} - lr .2 sqrt(max(rows, columns)) NewtonSchulz(d_t) - lr weight_decay p_{t-1}
///
/// A matrix is every tensor of two and more dimensions, seen as [size(0), rest], both above 1: a
/// rule knows no names of layers, so embeddings and the last layer, which users often leave to
/// AdamW, are among them. Newton-Schulz is torch's: the quintic of coefficients (3.4445,
/// -4.7750, 2.0315), here in the compute dtype instead of bfloat16. State: step, momentum,
/// second_moment; the last is empty for matrices (4 bytes per float32 parameter of a matrix, 8 of
/// the rest).
///
///     auto rule = optim::make_rule("muon");
///
/// Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; Liu et al.,
/// "Muon is scalable for LLM training", arXiv 2502.16982. Throws InputError for options out of
/// range.
class Muon : public PerParameterRule {
 public:
  /// Errors say that they are of the rule `name`.
  explicit Muon(const MuonOptions& options = {}, const std::string& name = "muon");

  std::string name() const override { return "muon"; }
  std::string options_json() const override;
  StateLayout state_layout(const at::Tensor& param) const override;
  std::shared_ptr<const UpdateRule> elementwise() const override;
  double default_lr() const override { return 1e-3; }
  std::optional<double> default_momentum() const override { return options_.momentum; }
  std::vector<double> step_sizes(const State& state, at::TensorList params,
                                 const StepOptions& options) const override;

 protected:
  /// Matrices one by one, the rest in one call of Adam's fused kernel.
  void do_step_(at::TensorList grads, State& state, at::TensorList params,
                const StepOptions& options, const std::vector<double>& shrink) const override;
  /// For a matrix its momentum, at the root mean square that its update would have.
  at::Tensor fallback_update(const at::Tensor& grad, const ParamState& state,
                             const at::Tensor& param, const StepOptions& options) const override;
  at::Tensor update_one(const at::Tensor& grad, ParamState& state, const at::Tensor& param,
                        const StepOptions& options) const override;

  /// The update of a matrix from its orthogonalised momentum; a rule that is made of this one may
  /// keep something in `second_moment`, which it lays out. Never writes to the first.
  virtual at::Tensor scaled(const at::Tensor& orthogonal, at::Tensor& second_moment,
                            double lr) const;

  bool is_matrix(const at::Tensor& param) const;

  bool elementwise_ = false;  // Adam for matrices, too

 private:
  MuonOptions options_;
  Adam adam_;
};

/// Registry entry "muon".
std::shared_ptr<UpdateRule> make_muon(const std::string& options_json);

}  // namespace mnemosyne::optim
