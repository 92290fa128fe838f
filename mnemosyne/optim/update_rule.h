#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mnemosyne/core/named_tensors.h"

namespace mnemosyne::optim {

/// What a rule remembers of one parameter: one tensor per name in `UpdateRule::state_names()`.
///
/// The first one is always "step", a 0-d int64 tensor on the CPU: how many updates this parameter
/// has had. Everything a rule needs for a bit-exact resume is in here, nothing is kept in the rule
/// itself.
using ParamState = std::vector<at::Tensor>;

/// The states of a list of parameters, in their order.
using State = std::vector<ParamState>;

/// What the user, not the rule, decides about a step.
struct StepOptions {
  double lr = 1.0;            ///< For learned rules a plain multiplier, default 1.
  double weight_decay = 0.0;  ///< Decoupled: each step takes lr * weight_decay * p off as well.
  std::optional<int64_t> num_steps = {};  ///< Length of the training run, when the user knows it.
};

struct UpdateResult {
  std::vector<at::Tensor> updates;  ///< Subtract these: p <- p - update.
  State state;                      ///< The state after the step.
};

/// An optimizer as a pure function: (gradients, state, parameters) -> (updates, state).
///
/// `update` never writes to its arguments and is differentiable with respect to `weights()`, which
/// is what meta-training needs; `step_` is the same step in place, which is what training needs and
/// what rules with a fused kernel override. Both give the same numbers.
///
/// Gradients have the parameters' shapes, are finite (see `clean_gradients`), and a rule is only
/// given the parameters that have one. State and updates have the compute dtype of the parameter:
/// float64 for float64, float32 for everything else. Parameters may have 0 to 5 dimensions, any
/// strides, and be empty. A rule is immutable while in use, so that many threads may share one.
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

  /// Names of the tensors of one ParamState; the first is "step".
  virtual std::vector<std::string> state_names() const = 0;

  /// The state before the first step.
  virtual ParamState init(const at::Tensor& param) const = 0;

  virtual UpdateResult update(at::TensorList grads, const State& state, at::TensorList params,
                              const StepOptions& options) const = 0;

  /// The same step in place: writes `state` and `params`. The default goes through `update`.
  virtual void step_(at::TensorList grads, State& state, at::TensorList params,
                     const StepOptions& options) const;

  /// A usable learning rate where the user names none (1 for learned rules).
  virtual double default_lr() const = 0;

  /// Everything that `make_rule(name(), options_json())` needs to make this rule again, but its
  /// weights: a JSON object.
  virtual std::string options_json() const { return "{}"; }

  /// Where the network should be evaluated: the parameters themselves, except for rules that train
  /// at one point and give the average of another (Schedule-Free). Never writes to its arguments.
  virtual std::vector<at::Tensor> evaluation_params(const State& state,
                                                    at::TensorList params) const;

  /// Learned weights by name; empty for hand-designed rules.
  virtual NamedTensors weights() const { return {}; }

  /// The same rule with other weights, which have the names and shapes of `weights()`; they may
  /// require gradients. InputError for a hand-designed rule, a missing name or another shape.
  virtual std::shared_ptr<UpdateRule> with_weights(const NamedTensors& weights) const;
};

/// float64 for float64 tensors, float32 otherwise.
at::ScalarType compute_dtype(const at::Tensor& tensor);

/// Contiguous zeros in the compute dtype, on the parameter's device.
at::Tensor zeros_for(const at::Tensor& param);

/// The "step" entry of a fresh ParamState.
at::Tensor new_step_counter();

/// The number of steps a state has seen.
int64_t step_count(const ParamState& state);

/// A copy that shares no storage.
State clone_state(const State& state);

/// The states of all parameters before the first step.
State init_state(const UpdateRule& rule, at::TensorList params);

/// Replaces non-finite entries by zero and clips magnitudes to 1e18, whose square is still finite.
/// Tensors that need no change are left as they are; others are replaced by a clean copy.
/// Returns the number of entries that were NaN or infinite.
int64_t clean_gradients(std::vector<at::Tensor>& grads);

}  // namespace mnemosyne::optim
