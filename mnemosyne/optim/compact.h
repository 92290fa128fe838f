#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mnemosyne/optim/orthogonal.h"

namespace mnemosyne::optim {

struct CompactOptions {
  OrthogonalOptions base = {};  ///< Of directions and schedule.
  bool learned = true;          ///< false leaves the base rule with its compact momentum.
  int64_t rank = 16;            ///< R of the momentum of a matrix, at least 1.
  double step_bound = 0.0;      ///< Largest change of a tensor's log step, 0 to 3; 0 leaves it.
};

/// Mnemosyne for models whose optimizer state has to be small: the default rule (mnemosyne_rule.h)
/// with the momentum of a matrix [N, K] kept as factors of rank R (low_rank.h), R (N + K) numbers
/// instead of N K:
///
///     m = b L R^T + (1 - b) g              L, R <- follow(m)
///     p <- p - s .2 sqrt(max(N, K)) orthogonalize(m + n (g - m)) - s e p
///
/// so that the gradient of a step enters its direction whole, and only what is remembered of it is
/// cut. Matrices that factors would not make smaller by a half keep their momentum, and other
/// tensors have Adam's direction and its two moments. There is no second moment of a matrix'
/// coordinates, hence neither mixture nor read-outs: the controller decides step s, blend n and
/// decay e of every tensor, from the features of the default rule (step_features.h; the sum of the
/// second moment is |g|^2 averaged over time, a number), guarded in the same way (step_guard.h).
///
/// With weights of zero the base rule with this momentum. State: 4 R (N + K) / (N K) bytes a
/// parameter of a matrix, .03 for 4,096 x 4,096 with R = 16, and 8 of a vector. A step adds four
/// products of N K R (three with `learned = false`) and the QR factorisation of [N, R] to the base
/// rule's. In place it holds the momentum of one matrix at a time.
///
///     auto rule = optim::default_rule("mnemosyne-compact");
class CompactRule : public UpdateRule {
 public:
  /// InputError for a value out of range.
  explicit CompactRule(CompactOptions options = {});

  std::string name() const override { return "mnemosyne-compact"; }
  StateLayout state_layout(const at::Tensor& param) const override;
  std::shared_ptr<const UpdateRule> elementwise() const override { return base_.elementwise(); }
  double default_lr() const override { return 1.0; }
  std::optional<double> default_momentum() const override { return base_.default_momentum(); }
  std::vector<double> step_sizes(const State& state, at::TensorList params,
                                 const StepOptions& options) const override;
  std::string options_json() const override;
  NamedTensors weights() const override;
  WeightAxes weight_axes() const override;
  std::shared_ptr<UpdateRule> with_weights(const NamedTensors& weights) const override;

 protected:
  UpdateResult do_update(at::TensorList grads, const State& state, at::TensorList params,
                         const StepOptions& options) const override;
  void do_step_(at::TensorList grads, State& state, at::TensorList params,
                const StepOptions& options, const std::vector<double>& shrink) const override;
  bool steps_with_factors() const override { return true; }
  /// Adam's direction of a vector, for a matrix its momentum, at the size that steps have.
  at::Tensor fallback_update(const at::Tensor& grad, const ParamState& state,
                             const at::Tensor& param, const StepOptions& options) const override;

 private:
  bool is_factored(const at::Tensor& param) const;
  /// Counts a step of every tensor; how the base rule moves them in it.
  std::vector<ops::StepBase> count_steps(State& state, at::TensorList params,
                                         const StepOptions& options) const;
  /// Sums over coordinates before the momenta are advanced.
  ops::StepSums look(at::TensorList grads, State& state, at::TensorList params,
                     const std::vector<ops::StepBase>& base) const;
  /// Advances what belongs to tensors as wholes, and decides.
  ops::StepCorrection decide(at::TensorList grads, State& state, at::TensorList params,
                             const StepOptions& options,
                             const std::vector<ops::StepBase>& base) const;
  /// The update of one tensor, whose moments it advances: new tensors in `state`.
  at::Tensor direction(const at::Tensor& grad, ParamState& state, const at::Tensor& param,
                       const ops::StepBase& base, const ops::StepCorrection& correction,
                       size_t index) const;

  CompactOptions options_;
  OrthogonalRule base_;
  at::Tensor controller_;  // [outputs, features]
};

std::shared_ptr<UpdateRule> make_compact_rule(const std::string& options_json);

}  // namespace mnemosyne::optim
