#pragma once

#include <torch/optim/optimizer.h>

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "mnemosyne/optim/fallback.h"
#include "mnemosyne/optim/update_rule.h"

namespace mnemosyne::optim {

/// What a parameter group decides for itself; a field that is not set follows the optimizer's.
///
///     groups.emplace_back(model->head->parameters(),
///                         std::make_unique<optim::RuleOptions>(optim::RuleOptions().lr(0.1)));
struct RuleOptions : public torch::optim::OptimizerCloneableOptions<RuleOptions> {
  TORCH_ARG(std::optional<double>, lr) = std::nullopt;  ///< Else the rule's default_lr().
  /// As AdamW's (docs/optimizer.md); else the rule's default_weight_decay().
  TORCH_ARG(std::optional<double>, weight_decay) = std::nullopt;
  TORCH_ARG(std::optional<int64_t>, num_steps) = std::nullopt;  ///< Length of the run, if known.
  /// Decay of the momentum in place of the rule's own, in [0, 1): what schedulers cycle.
  TORCH_ARG(std::optional<double>, momentum) = std::nullopt;
  /// false: Adam's direction, nothing learned (`UpdateRule::elementwise`), for parameters with
  /// masked entries; else true.
  TORCH_ARG(std::optional<bool>, orthogonal) = std::nullopt;

 public:
  void serialize(torch::serialize::InputArchive& archive) override;
  void serialize(torch::serialize::OutputArchive& archive) const override;

  /// For torch's learning-rate schedulers; 1 while `lr` is not set.
  double get_lr() const override { return lr().value_or(1.0); }
  void set_lr(double value) override { lr(value); }
};

/// Any update rule as a `torch::optim::Optimizer`: in place, with parameter groups, closures, and
/// `torch::save` / `torch::load` that resume bit for bit.
///
/// Parameters may have any floating dtype, 0 to 5 dimensions and any strides; those without a
/// gradient are left alone. NaN and Inf entries of a gradient count as zero, so that they poison
/// nothing, and are counted; so are updates that were not finite in spite of that, which are never
/// written (`UpdateRule::step_`). The rule is shared, never changed.
///
///     optim::RuleOptimizer optimizer(model->parameters(), optim::make_rule("adamw"),
///                                    optim::RuleOptions().lr(3e-3));
///     optimizer.zero_grad();
///     loss.backward();
///     optimizer.step();
class RuleOptimizer : public torch::optim::Optimizer {
 public:
  /// Throws InputError for a learning rate or weight decay that is negative or not finite, a
  /// num_steps below 1, a momentum out of range or `orthogonal(false)` where the rule has no such.
  RuleOptimizer(std::vector<at::Tensor> params, std::shared_ptr<const UpdateRule> rule,
                RuleOptions defaults = {});
  RuleOptimizer(const std::vector<torch::optim::OptimizerParamGroup>& groups,
                std::shared_ptr<const UpdateRule> rule, RuleOptions defaults = {});

  /// As torch's, with RuleOptions; fields that they leave open take the optimizer's values. (Called
  /// through a reference to the base class, torch's puts the optimizer's options in their place.)
  void add_param_group(const torch::optim::OptimizerParamGroup& group);

  /// One step on all parameters that have a gradient. With a closure: runs it first, gradients
  /// enabled, and returns its loss; without one, an undefined tensor. InputError, before anything
  /// is written, where a state and its parameter do not fit or an option is out of range.
  at::Tensor step(LossClosure closure = nullptr) override;

  /// State, options of the groups, the counts and the identity of the rule (`weights_hash`).
  void save(torch::serialize::OutputArchive& archive) const override;

  /// Throws InputError, and changes nothing, when the archive was written with another rule or
  /// other weights, for other groups or parameters of other shapes, or by something else. Options
  /// are those of the archive, but for a num_steps that this optimizer was given: a run is extended
  /// by loading it into an optimizer with a larger one.
  void load(torch::serialize::InputArchive& archive) override;

  /// Entries of gradients so far that were NaN or infinite. Waits for a device.
  int64_t nonfinite_count() const { return nonfinite_.total(); }

  /// Steps so far of a group that was beyond its num_steps: they are as small as its last one.
  int64_t overrun_count() const { return overrun_count_; }
  /// Updates of tensors so far that were not finite and were replaced. Waits for a device.
  int64_t fallback_count() const { return fallbacks_.total(); }
  /// Steps of tensors so far that were held nearer to the base rule's, because the gradients ran
  /// away (step_guard.h). Waits for a device.
  int64_t damped_count() const { return damped_.total(); }

  const UpdateRule& rule() const { return *rule_; }

  /// What the rule remembers of a group as a whole (`State::shared`); empty before its first step.
  std::vector<at::Tensor> shared_state(size_t group) const;

  /// The rule that a group's parameters follow, with or without `orthogonal`.
  std::shared_ptr<const UpdateRule> rule_of(const RuleOptions& options) const;

 private:
  struct GroupStep;

  GroupStep prepared(size_t index);
  void run(GroupStep& step);

  std::shared_ptr<const UpdateRule> rule_;
  DeferredCount nonfinite_;
  int64_t overrun_count_ = 0;
  DeferredCount fallbacks_;
  DeferredCount damped_;
  std::map<size_t, std::vector<at::Tensor>> shared_states_;  // by group
};

}  // namespace mnemosyne::optim
