#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mnemosyne/core/named_tensors.h"
#include "mnemosyne/optim/state_layout.h"
#include "mnemosyne/optim/weight_axes.h"

namespace mnemosyne::optim {

class DeferredCount;

/// What a learned rule saw of every tensor of a step and what it decided, with their graph: the
/// axes of its first weight (`UpdateRule::weight_axes`), before any bound and after the guard.
struct Decisions {
  at::Tensor features;  ///< [T,F]
  at::Tensor outputs;   ///< [T,K]
};

/// What the caller, not the rule, decides about a step.
struct StepOptions {
  double lr = 1.0;  ///< For learned rules a plain multiplier, default 1.
  /// As AdamW's: each step takes step size * weight_decay * p off as well, with the step size of
  /// `UpdateRule::step_sizes`. Unset: the rule's `default_weight_decay()`; an explicit 0 is 0.
  std::optional<double> weight_decay = {};
  std::optional<int64_t> num_steps = {};  ///< Length of the training run, when the user knows it.
  /// In place of the rule's own decay of its momentum, in [0, 1): what schedulers cycle. Only for
  /// rules with a `default_momentum()`.
  std::optional<double> momentum = {};
  /// 0-d tensors on the device of the parameters, or undefined: factors of `lr` and of
  /// `weight_decay` that a step does not read.
  at::Tensor lr_factor = {};
  at::Tensor weight_decay_factor = {};
  DeferredCount* fallbacks = nullptr;  ///< Counts what `step_` replaced (optim/fallback.h).
  DeferredCount* damped = nullptr;     ///< Counts the tensors that a guard holds (step_guard.h).
  Decisions* decisions = nullptr;      ///< Takes those of an `update`; of rules that have some.
};

struct UpdateResult {
  std::vector<at::Tensor> updates;  ///< Subtract these: p <- p - update.
  State state;                      ///< The state after the step.
};

class UpdateRule;

/// What `UpdateRule::step_` takes, of one of several networks that are stepped together
/// (optim/population.h). What it points to outlives the step.
struct MemberStep {
  const UpdateRule* rule = nullptr;
  at::TensorList grads = {};
  State* state = nullptr;
  at::TensorList params = {};
  StepOptions options = {};
  std::vector<double> shrink = {};  ///< What weight decay takes off; `step_members_` fills it in.
};

/// An optimizer as a pure function: (gradients, state, parameters) -> (updates, state).
///
/// `update` never writes to its arguments and is differentiable with respect to `weights()`, which
/// is what meta-training needs; `step_` is the same step in place, which is what training needs.
/// Both give the same numbers, and both check what they are given before anything is written:
/// InputError, one line, for a state that is not that of the parameter (`state_layout`), a gradient
/// of another shape or device, a parameter that is not real and dense, options out of range.
///
/// Gradients are finite (see `clean_gradients`), and a rule is only given the parameters that have
/// one. State and updates have the compute dtype of the parameter: float64 for float64, float32 for
/// everything else. Parameters may have 0 to 5 dimensions, any strides, and be empty. A rule is
/// immutable while in use, so that many threads may share one.
///
///     auto rule = optim::make_rule("adamw");
///     optim::State state;
///     for (const auto& p : params) state.push_back(rule->init(p));
///     auto [updates, next] = rule->update(grads, state, params, {.lr = 1e-3});
class UpdateRule {
 public:
  virtual ~UpdateRule() = default;

  /// The registry's name for it, for example "adamw".
  virtual std::string name() const = 0;

  /// The tensors of one ParamState, "step" first. Reads shape, dtype and device of `param` only.
  virtual StateLayout state_layout(const at::Tensor& param) const = 0;

  /// The names in `state_layout`, which are the same for every parameter.
  std::vector<std::string> state_names() const;

  /// The state before the first step: zeros, unless the rule says otherwise.
  virtual ParamState init(const at::Tensor& param) const;

  /// The tensors of State::shared, what is remembered of a list of parameters as a whole: on the
  /// device of its first parameter, or on the CPU. They start as zeros. Most rules have none.
  virtual StateLayout shared_layout() const { return {}; }

  UpdateResult update(at::TensorList grads, const State& state, at::TensorList params,
                      const StepOptions& options) const;

  /// The same step in place: writes `state` and `params`. State on another device than it belongs
  /// to is brought back.
  ///
  /// An update that is not finite is never written: the tensor takes `fallback_update`, entries of
  /// its state that are not finite start anew, and `StepOptions::fallbacks` counts one.
  void step_(at::TensorList grads, State& state, at::TensorList params,
             const StepOptions& options) const;

  /// Whether `step_members_` takes both rules' members in one pass: rules of one kind, whatever
  /// their weights and options.
  virtual bool steps_with(const UpdateRule& /*other*/) const { return false; }

  /// `step_` of every member in one pass where the rules have one, the same as one after the other
  /// (bit for bit but for attention, up to rounding): `steps_with` holds for all of them. Nothing
  /// is checked of states and parameters (`adopt`).
  static void step_members_(std::vector<MemberStep>& members);

  /// InputError for a state that is not that of the parameters, and for a parameter that no rule
  /// takes; state on another device than it belongs to is brought back.
  void adopt(State& state, at::TensorList params) const;

  /// A usable learning rate where the user names none (1 for learned rules).
  virtual double default_lr() const = 0;

  /// The weight decay of steps whose options name none.
  virtual double default_weight_decay() const { return 0.0; }

  /// What StepOptions::momentum replaces; none for rules without a momentum that can be changed.
  virtual std::optional<double> default_momentum() const { return {}; }

  /// The sizes of the parameters' next steps in the units of AdamW's learning rate, schedules of
  /// the rule included and learned corrections not: what weight decay is multiplied with.
  virtual std::vector<double> step_sizes(const State& state, at::TensorList params,
                                         const StepOptions& options) const;

  /// The rule for parameters whose entries must not move one another, because some of them are
  /// pruned or only some rows are trained: an entry without a gradient stays where it is. Null
  /// where the rule itself is like that. InputError where there is none (the LSTMs).
  virtual std::shared_ptr<const UpdateRule> elementwise() const = 0;

  /// Everything that `make_rule(name(), options_json())` needs to make this rule again, but its
  /// weights: a JSON object.
  virtual std::string options_json() const { return "{}"; }

  /// Where the network should be evaluated: the parameters themselves, except for rules that train
  /// at one point and give the average of another (Schedule-Free). Never writes to its arguments.
  virtual std::vector<at::Tensor> evaluation_params(const State& state,
                                                    at::TensorList params) const;

  /// Learned weights by name; empty for hand-designed rules.
  virtual NamedTensors weights() const { return {}; }

  /// What the rows and columns of the weights belong to: weights files say it, so that what a later
  /// version looks at or decides beside it finds its place (optim/weights.h).
  virtual WeightAxes weight_axes() const { return {}; }

  /// The same rule with other weights, which have the names and shapes of `weights()`; they may
  /// require gradients. InputError for a hand-designed rule, a missing name or another shape.
  virtual std::shared_ptr<UpdateRule> with_weights(const NamedTensors& weights) const;

 protected:
  /// `update` of what has been checked, without weight decay. `options.weight_decay` is set.
  virtual UpdateResult do_update(at::TensorList grads, const State& state, at::TensorList params,
                                 const StepOptions& options) const = 0;

  /// `step_` of what has been checked; `shrink` has the share of each parameter that weight decay
  /// takes off. The default goes through `do_update`; a rule with a fused kernel has its own.
  virtual void do_step_(at::TensorList grads, State& state, at::TensorList params,
                        const StepOptions& options, const std::vector<double>& shrink) const;

  /// `step_members_` of members whose rules are like this one; the default steps one after the
  /// other.
  virtual void do_step_members_(const std::vector<MemberStep>& members) const;

  /// What a tensor takes in place of an update that is not finite, without weight decay, from its
  /// gradient and its state after the step, both finite: the default leaves the tensor where it is.
  virtual at::Tensor fallback_update(const at::Tensor& grad, const ParamState& state,
                                     const at::Tensor& param, const StepOptions& options) const;

  /// param <- param - (update + shrink param), with one rounding to the parameter's dtype. Where
  /// that is not finite, `fallback_update` takes the place of the update (`step_`).
  void move_(const at::Tensor& param, const at::Tensor& update, double shrink,
             const at::Tensor& grad, ParamState& state, const StepOptions& options) const;

  /// Whether `do_update` includes weight decay, because the rule moves more than the parameter by
  /// it (Schedule-Free), or has its step size on the device; `shrink` is zero then.
  virtual bool decays_itself() const { return false; }

  /// Whether updates are proportional to `lr`, so that the base class multiplies them by
  /// `lr_factor`; a rule that says no does with both factors what is right.
  virtual bool is_linear_in_lr() const { return true; }

  /// Whether the rule's own `do_step_` knows `lr_factor` and `weight_decay_factor`; where it does
  /// not, the one of the base class takes its place.
  virtual bool steps_with_factors() const { return false; }

 private:
  /// `options` with a weight decay, checked like everything else; brings `state` to its place.
  StepOptions checked(at::TensorList grads, State& state, at::TensorList params,
                      StepOptions options) const;
  void check_shared(State& state, at::TensorList params) const;
  /// `update` times the factor of `lr`, where updates are proportional to that.
  at::Tensor scaled(const at::Tensor& update, const StepOptions& options) const;
  std::vector<double> shrink(const State& state, at::TensorList params,
                             const StepOptions& options) const;
};

/// InputError, said to come from `where`, for a learning rate or weight decay that is not finite or
/// a weight decay below 0, a num_steps below 1, a momentum out of range or of a rule without one.
void check_step_options(const UpdateRule& rule, const StepOptions& options,
                        const std::string& where);

/// The states of all parameters before the first step.
State init_state(const UpdateRule& rule, at::TensorList params);

/// Replaces non-finite entries by zero and clips magnitudes to 1e18, whose square is still finite,
/// and counts the entries that were NaN or infinite. On the CPU, tensors that need no change are
/// left as they are and others are replaced by a clean copy; on a device all are, and nothing is
/// read.
void clean_gradients(std::vector<at::Tensor>& grads, DeferredCount& nonfinite);

}  // namespace mnemosyne::optim
