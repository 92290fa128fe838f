#pragma once

#include "mnemosyne/optim/per_parameter_rule.h"

namespace mnemosyne::optim {

/// The authors' setting for language models, but for the warm-up.
struct AmuseOptions {
  double beta1 = 0.6;      ///< Share of the average in the point of the first gradients, in (0, 1).
  double rho = 0.8;        ///< How fast that share goes to 1, at least 0.
  double momentum = 0.95;  ///< Of matrices, in [0, 1); Nesterov's.
  double beta2 = 0.999;    ///< Decay of the mean squared gradient of the rest, in [0, 1).
  double eps = 1e-10;      ///< Added to its root, at least 0.
  int64_t num_iterations = 5;  ///< Newton-Schulz steps, 1 to 99.
  int64_t warmup_steps = 50;   ///< The learning rate grows linearly over so many steps, at least 1;
                               ///< they use 5 to 40 % of a run, whose length is not known here.
};

/// Muon with the averages of Schedule-Free in place of a schedule, and gradients that are taken
/// nearer and nearer to the average. Three points: z, the fast iterate; x, its average, where the
/// network is meant to be used; y between them, where gradients are taken. **The parameter is y**;
/// `evaluation_params` gives x. With T the warm-up and u_t Muon's direction of a matrix at root
/// mean square .2, or g / (sqrt(v^) + eps) of anything else,
///
///     lr_t = lr min(1, t / T),   c_t = lr_t^2 / (lr_1^2 + ... + lr_t^2)
///     z_{t+1} = (1 - lr_t weight_decay) z_t - lr_t u_t,   x_{t+1} = (1 - c_t) x_t + c_t z_{t+1}
///     b_{t+1} = 1 - (1 - beta1) s^rho,   s = c_t (1 - c_T) / (c_T (1 - c_t)) for t > T, else 1
///     y_{t+1} = (1 - b_{t+1}) z_{t+1} + b_{t+1} x_{t+1}
///
/// x is computed from y and z, so with bfloat16 parameters it is only as exact as these. State:
/// step, moment (Muon's momentum, or v), z (8 bytes per float32 parameter) and three float64
/// scalars.
///
///     auto rule = optim::make_rule("amuse");       // lr .01
///
/// Kim et al., "AMUSE: anytime Muon with stable gradient evaluation", arXiv 2605.22432, and the
/// authors' code, which takes b_{t+1} for b_t where it gets x back from y. Throws InputError for
/// options out of range.
class Amuse : public PerParameterRule {
 public:
  explicit Amuse(const AmuseOptions& options = {});

  std::string name() const override { return "amuse"; }
  std::string options_json() const override;
  StateLayout state_layout(const at::Tensor& param) const override;
  ParamState init(const at::Tensor& param) const override;
  std::shared_ptr<const UpdateRule> elementwise() const override;
  double default_lr() const override { return 1e-2; }
  double default_weight_decay() const override { return 0.05; }
  std::vector<double> step_sizes(const State& state, at::TensorList params,
                                 const StepOptions& options) const override;
  std::vector<at::Tensor> evaluation_params(const State& state,
                                            at::TensorList params) const override;

 protected:
  /// z moves by it.
  bool decays_itself() const override { return true; }

  /// Averages weigh each step by its learning rate.
  bool is_linear_in_lr() const override { return false; }

  at::Tensor update_one(const at::Tensor& grad, ParamState& state, const at::Tensor& param,
                        const StepOptions& options) const override;

 private:
  bool is_matrix(const at::Tensor& param) const;
  double warmup(double t) const;
  at::Tensor direction(const at::Tensor& grad, at::Tensor& moment, double t) const;
  /// The share of this step in the average, and that of the average in the next point (`state`).
  at::Tensor advance_shares(ParamState& state, const at::Tensor& lr, double t) const;

  AmuseOptions options_;
  bool elementwise_ = false;  // no matrices
};

/// Registry entry "amuse".
std::shared_ptr<UpdateRule> make_amuse(const std::string& options_json);

}  // namespace mnemosyne::optim
