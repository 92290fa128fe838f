#pragma once

#include <torch/optim/optimizer.h>

#include <memory>
#include <optional>
#include <vector>

#include "mnemosyne/optim/update_rule.h"

namespace mnemosyne::optim {

/// What a parameter group decides for itself; a field that is not set follows the optimizer's.
///
///     groups.emplace_back(model->head->parameters(),
///                         std::make_unique<optim::RuleOptions>(optim::RuleOptions().lr(0.1)));
struct RuleOptions : public torch::optim::OptimizerCloneableOptions<RuleOptions> {
  TORCH_ARG(std::optional<double>, lr) = std::nullopt;            ///< Else the rule's default_lr().
  TORCH_ARG(std::optional<double>, weight_decay) = std::nullopt;  ///< Decoupled; else 0.
  TORCH_ARG(std::optional<int64_t>, num_steps) = std::nullopt;    ///< Length of the run, if known.

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
/// nothing, and are counted. The rule is shared, never changed.
///
///     optim::RuleOptimizer optimizer(model->parameters(), optim::make_rule("adamw"),
///                                    optim::RuleOptions().lr(3e-3));
///     optimizer.zero_grad();
///     loss.backward();
///     optimizer.step();
class RuleOptimizer : public torch::optim::Optimizer {
 public:
  /// Throws InputError for a negative learning rate or weight decay or a num_steps below 1.
  RuleOptimizer(std::vector<at::Tensor> params, std::shared_ptr<const UpdateRule> rule,
                RuleOptions defaults = {});
  RuleOptimizer(const std::vector<torch::optim::OptimizerParamGroup>& groups,
                std::shared_ptr<const UpdateRule> rule, RuleOptions defaults = {});

  /// As torch's, with RuleOptions; fields that they leave open take the optimizer's values. (Called
  /// through a reference to the base class, torch's puts the optimizer's options in their place.)
  void add_param_group(const torch::optim::OptimizerParamGroup& group);

  /// One step on all parameters that have a gradient. With a closure: runs it first, gradients
  /// enabled, and returns its loss; without one, an undefined tensor.
  at::Tensor step(LossClosure closure = nullptr) override;

  /// State, options of the groups, `nonfinite_count` and the identity of the rule (`weights_hash`).
  void save(torch::serialize::OutputArchive& archive) const override;

  /// Throws InputError, and changes nothing, when the archive was written with another rule or
  /// other weights, for other groups or parameters of other shapes, or by something else.
  void load(torch::serialize::InputArchive& archive) override;

  /// Entries of gradients so far that were NaN or infinite.
  int64_t nonfinite_count() const { return nonfinite_count_; }

  const UpdateRule& rule() const { return *rule_; }

 private:
  void step_group(const torch::optim::OptimizerParamGroup& group);

  std::shared_ptr<const UpdateRule> rule_;
  int64_t nonfinite_count_ = 0;
};

}  // namespace mnemosyne::optim
