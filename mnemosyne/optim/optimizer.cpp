#include "mnemosyne/optim/optimizer.h"

#include <ATen/core/grad_mode.h>
#include <torch/serialize/archive.h>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/optim/optimizer_archive.h"

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
          .weight_decay = options.weight_decay(),
          .num_steps = options.num_steps(),
          .momentum = options.momentum()};
}

void validate(const RuleOptions& options, const UpdateRule& rule) {
  const StepOptions step = step_options(options);
  check_option(step.lr >= 0.0, "RuleOptimizer", "lr of at least 0", step.lr);
  check_step_options(rule, step, "RuleOptimizer");
  if (!options.orthogonal().value_or(true)) rule.elementwise();
}

std::unique_ptr<RuleOptions> completed(RuleOptions defaults, const UpdateRule& rule) {
  if (!defaults.lr()) defaults.lr(rule.default_lr());
  if (!defaults.weight_decay()) defaults.weight_decay(rule.default_weight_decay());
  validate(defaults, rule);
  return std::make_unique<RuleOptions>(defaults);
}

std::string place(size_t group, size_t param) {
  return "parameter " + std::to_string(param) + " of group " + std::to_string(group);
}

}  // namespace

// What one group does in a step.
struct RuleOptimizer::GroupStep {
  size_t index;
  std::shared_ptr<const UpdateRule> rule;
  StepOptions options;
  std::vector<at::Tensor> params = {}, grads = {};
  std::vector<RuleParamState*> entries = {};
  State state = {};
};

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
  if (!group.has_options()) return Optimizer::add_param_group(group);
  const RuleOptions& defaults = rule_options(*defaults_);
  auto completed_options = group.options().clone();
  RuleOptions& options = rule_options(*completed_options);
  if (!options.lr()) options.lr(defaults.lr());
  if (!options.weight_decay()) options.weight_decay(defaults.weight_decay());
  if (!options.num_steps()) options.num_steps(defaults.num_steps());
  if (!options.momentum()) options.momentum(defaults.momentum());
  if (!options.orthogonal()) options.orthogonal(defaults.orthogonal());
  validate(options, *rule_);
  Optimizer::add_param_group(group);
  param_groups_.back().set_options(std::move(completed_options));
}

at::Tensor RuleOptimizer::step(LossClosure closure) {
  at::Tensor loss;
  if (closure != nullptr) {
    const at::AutoGradMode enabled(true);
    loss = closure();
  }
  const at::NoGradGuard no_grad;
  std::vector<GroupStep> steps;
  for (size_t index = 0; index < param_groups_.size(); ++index) steps.push_back(prepared(index));
  for (GroupStep& step : steps) run(step);
  return loss;
}

std::shared_ptr<const UpdateRule> RuleOptimizer::rule_of(const RuleOptions& options) const {
  if (options.orthogonal().value_or(true)) return rule_;
  auto elementwise = rule_->elementwise();
  return elementwise == nullptr ? rule_ : elementwise;
}

RuleOptimizer::GroupStep RuleOptimizer::prepared(size_t index) {
  const OptimizerParamGroup& group = param_groups_[index];
  const auto& options = static_cast<const RuleOptions&>(group.options());
  GroupStep step{.index = index, .rule = rule_of(options), .options = step_options(options)};
  step.state.shared = shared_state(index);
  step.options.fallbacks = &fallbacks_;
  step.options.damped = &damped_;
  check_step_options(*step.rule, step.options, "RuleOptimizer");
  for (size_t i = 0; i < group.params().size(); ++i) {
    const at::Tensor& param = group.params()[i];
    const at::Tensor& grad = param.grad();
    if (!grad.defined()) continue;
    step.params.push_back(param);
    step.grads.push_back(grad.layout() == at::kStrided ? grad : grad.to_dense());
    std::unique_ptr<torch::optim::OptimizerParamState>& entry = state_[param.unsafeGetTensorImpl()];
    if (entry == nullptr) entry = std::make_unique<RuleParamState>(step.rule->init(param));
    step.entries.push_back(static_cast<RuleParamState*>(entry.get()));
    step.state.push_back(step.entries.back()->tensors);
    check_state(step.rule->state_layout(param), step.state.back(), "RuleOptimizer",
                place(index, i));
  }
  return step;
}

void RuleOptimizer::run(GroupStep& step) {
  if (step.params.empty()) return;
  clean_gradients(step.grads, nonfinite_);
  step.rule->step_(step.grads, step.state, step.params, step.options);
  shared_states_[step.index] = std::move(step.state.shared);
  bool overrun = false;
  for (size_t i = 0; i < step.entries.size(); ++i) {
    const int64_t taken = step_count(step.state[i]);
    overrun = overrun || taken > step.options.num_steps.value_or(taken);
    step.entries[i]->tensors = std::move(step.state[i]);
  }
  overrun_count_ += overrun ? 1 : 0;
}

std::vector<at::Tensor> RuleOptimizer::shared_state(size_t group) const {
  const auto found = shared_states_.find(group);
  return found == shared_states_.end() ? std::vector<at::Tensor>() : found->second;
}

void RuleOptimizer::save(torch::serialize::OutputArchive& archive) const {
  write_optimizer(archive, *this);
}

void RuleOptimizer::load(torch::serialize::InputArchive& archive) {
  LoadedOptimizer loaded = read_optimizer(archive, *this);
  nonfinite_ = DeferredCount(loaded.nonfinite_count);
  overrun_count_ = loaded.overrun_count;
  fallbacks_ = DeferredCount(loaded.fallback_count);
  damped_ = DeferredCount(loaded.damped_count);
  state_ = std::move(loaded.state);
  shared_states_ = std::move(loaded.shared_states);
  for (size_t g = 0; g < param_groups_.size(); ++g) {
    rule_options(param_groups_[g].options()) = loaded.options[g];
  }
}

}  // namespace mnemosyne::optim
