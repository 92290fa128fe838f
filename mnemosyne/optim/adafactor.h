#pragma once

#include "mnemosyne/optim/per_parameter_rule.h"

namespace mnemosyne::optim {

struct AdafactorOptions {
  double beta2_decay = -0.8;     ///< Exponent of the second moment's decay, at most 0.
  double clip_threshold = 1.0;   ///< Root mean square above which an update is scaled down; >= 1.
  double smallest_scale = 1e-3;  ///< Floor of the parameter's root mean square; at least 0.
};

/// Adafactor, as `torch.optim.Adafactor`: a step relative to the parameter's size, with second
/// moments of tensors of two and more dimensions factored over the last two (M rows, N columns):
///
///     b_t = t^beta2_decay
///     R_t = (1 - b_t) R_{t-1} + b_t mean_columns(g_t^2)         [..., M, 1]
///     C_t = (1 - b_t) C_{t-1} + b_t mean_rows(g_t^2)            [..., 1, N]
///     V_t = R_t C_t / mean_rows(R_t)                            (vectors: V_t kept whole)
///     d_t = g_t / sqrt(V_t),   d_t <- d_t / max(1, rms(d_t) / clip_threshold)
///     p_t = p_{t-1} - max(smallest_scale, rms(p_{t-1})) min(lr, 1 / sqrt(t)) d_t
///                   - lr weight_decay p_{t-1}
///
/// State: step, row, column, variance; those that a tensor does not need are empty (about .06 bytes
/// per parameter of a large matrix).
///
///     auto rule = optim::make_rule("adafactor");
///
/// Shazeer and Stern, "Adafactor: adaptive learning rates with sublinear memory cost", ICML 2018.
/// Throws InputError for options out of range.
class Adafactor : public PerParameterRule {
 public:
  explicit Adafactor(const AdafactorOptions& options = {});

  std::string name() const override { return "adafactor"; }
  std::string options_json() const override;
  StateLayout state_layout(const at::Tensor& param) const override;
  double default_lr() const override { return 1e-2; }

 protected:
  at::Tensor update_one(const at::Tensor& grad, ParamState& state, const at::Tensor& param,
                        const StepOptions& options) const override;

  /// The step is at most 1 / sqrt(t).
  bool is_linear_in_lr() const override { return false; }

 private:
  AdafactorOptions options_;
};

/// Registry entry "adafactor".
std::shared_ptr<UpdateRule> make_adafactor(const std::string& options_json);

}  // namespace mnemosyne::optim
