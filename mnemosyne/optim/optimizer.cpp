#include "mnemosyne/optim/optimizer.h"

#include <ATen/core/grad_mode.h>
#include <torch/serialize/archive.h>

#include "mnemosyne/core/error.h"
#include "mnemosyne/optim/optimizer_archive.h"
#include "mnemosyne/optim/rule_options.h"

namespace mnemosyne::optim {
namespace {

using torch::optim::OptimizerParamGroup;

RuleOptions& rule_options(torch::optim::OptimizerOptions& options) {
  auto* typed = dynamic_cast<RuleOptions*>(&options);
  if (typed == nullptr) {
    throw InputError(
        "[RuleOptimizer] expected parameter groups with RuleOptions, got other options");
  }
  return *typed;
}

StepOptions step_options(const RuleOptions& options) {
  return {.lr = options.lr().value_or(1.0),
          .weight_decay = options.weight_decay().value_or(0.0),
          .num_steps = options.num_steps()};
}

void validate(const RuleOptions& options) {
  const StepOptions step = step_options(options);
  check_option(step.lr >= 0.0, "RuleOptimizer", "lr of at least 0", step.lr);
  check_option(step.weight_decay >= 0.0, "RuleOptimizer", "weight_decay of at least 0",
               step.weight_decay);
  const auto num_steps = static_cast<double>(step.num_steps.value_or(1));
  check_option(num_steps >= 1.0, "RuleOptimizer", "num_steps of at least 1", num_steps);
}

std::unique_ptr<RuleOptions> completed(RuleOptions defaults, const UpdateRule& rule) {
  if (!defaults.lr()) defaults.lr(rule.default_lr());
  if (!defaults.weight_decay()) defaults.weight_decay(0.0);
  validate(defaults);
  return std::make_unique<RuleOptions>(defaults);
}

}  // namespace

RuleOptimizer::RuleOptimizer(std::vector<at::Tensor> params, std::shared_ptr<const UpdateRule> rule,
                             RuleOptions defaults)
    : RuleOptimizer({OptimizerParamGroup(std::move(params))}, std::move(rule),
                    std::move(defaults)) {}

RuleOptimizer::RuleOptimizer(const std::vector<OptimizerParamGroup>& groups,
                             std::shared_ptr<const UpdateRule> rule, RuleOptions defaults)
    : Optimizer(std::vector<OptimizerParamGroup>(), completed(std::move(defaults), *rule)),
      rule_(std::move(rule)) {
  for (const OptimizerParamGroup& group : groups) add_param_group(group);
}

// torch's gives a group with options of a type that it does not know the defaults in their place.
void RuleOptimizer::add_param_group(const OptimizerParamGroup& group) {
  Optimizer::add_param_group(group);
  if (!group.has_options()) return;
  const RuleOptions& defaults = rule_options(*defaults_);
  auto completed_options = group.options().clone();
  RuleOptions& options = rule_options(*completed_options);
  if (!options.lr()) options.lr(defaults.lr());
  if (!options.weight_decay()) options.weight_decay(defaults.weight_decay());
  if (!options.num_steps()) options.num_steps(defaults.num_steps());
  validate(options);
  param_groups_.back().set_options(std::move(completed_options));
}

at::Tensor RuleOptimizer::step(LossClosure closure) {
  at::Tensor loss;
  if (closure != nullptr) {
    const at::AutoGradMode enabled(true);
    loss = closure();
  }
  const at::NoGradGuard no_grad;
  for (const OptimizerParamGroup& group : param_groups_) step_group(group);
  return loss;
}

void RuleOptimizer::step_group(const OptimizerParamGroup& group) {
  std::vector<at::Tensor> params, grads;
  std::vector<RuleParamState*> entries;
  State state;
  for (const at::Tensor& param : group.params()) {
    const at::Tensor& grad = param.grad();
    if (!grad.defined()) continue;
    params.push_back(param);
    grads.push_back(grad.layout() == at::kStrided ? grad : grad.to_dense());
    std::unique_ptr<torch::optim::OptimizerParamState>& entry = state_[param.unsafeGetTensorImpl()];
    if (entry == nullptr) entry = std::make_unique<RuleParamState>(rule_->init(param));
    entries.push_back(static_cast<RuleParamState*>(entry.get()));
    state.push_back(entries.back()->tensors);
  }
  if (params.empty()) return;
  nonfinite_count_ += clean_gradients(grads);
  rule_->step_(grads, state, params,
               step_options(static_cast<const RuleOptions&>(group.options())));
  for (size_t i = 0; i < entries.size(); ++i) entries[i]->tensors = std::move(state[i]);
}

void RuleOptimizer::save(torch::serialize::OutputArchive& archive) const {
  write_optimizer(archive, *this, nonfinite_count_);
}

void RuleOptimizer::load(torch::serialize::InputArchive& archive) {
  LoadedOptimizer loaded = read_optimizer(archive, *this);
  nonfinite_count_ = loaded.nonfinite_count;
  state_ = std::move(loaded.state);
  for (size_t g = 0; g < param_groups_.size(); ++g) {
    rule_options(param_groups_[g].options()) = loaded.options[g];
  }
}

}  // namespace mnemosyne::optim
