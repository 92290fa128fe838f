#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "mnemosyne/optim/update_rule.h"

namespace mnemosyne::optim {

/// P networks of the same shapes that are trained side by side, each with a rule of its own: their
/// states, and steps of all of them in one call.
///
/// Where neighbouring members have rules of one kind, whose weights and options may differ, and the
/// rule has a step for many (`UpdateRule::steps_with`), that is one pass over all of their tensors;
/// the others take a step one after the other. The same as `UpdateRule::step_` of every member, bit
/// for bit but for attention, which is one batch of all of them and the same up to rounding. States
/// and parameters are checked once, here, and when states are set.
///
///     Population population(rules, params);  // P rules, params of shapes [P, ...]
///     population.step_(grads, options, alive);
class Population {
 public:
  using Rules = std::vector<std::shared_ptr<const UpdateRule>>;

  /// Parameters are stacked, [P, ...], keep their storage and are written by `step_`. InputError
  /// where they are nothing that the rules take.
  Population(Rules rules, const std::vector<at::Tensor>& params);

  int64_t size() const { return static_cast<int64_t>(rules_.size()); }

  /// A step of every member m with alive[m], from the stacked gradients, as the parameters are.
  void step_(const std::vector<at::Tensor>& grads, const std::vector<StepOptions>& options,
             const std::vector<char>& alive);

  const State& state(int64_t member) const { return states_[member]; }

  /// InputError for what is not a state of this member.
  void set_state(int64_t member, State state);

  /// Where the members should be evaluated, [P, ...]; copies. See UpdateRule::evaluation_params.
  std::vector<at::Tensor> evaluation_params() const;

 private:
  Rules rules_;
  std::vector<at::Tensor> params_;              // stacked, without gradients
  std::vector<std::vector<at::Tensor>> views_;  // per member, without the leading dimension
  std::vector<State> states_;                   // per member
};

}  // namespace mnemosyne::optim
