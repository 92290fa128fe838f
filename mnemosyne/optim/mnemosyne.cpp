#include "mnemosyne/optim/mnemosyne.h"

#include "mnemosyne/core/error.h"
#include "mnemosyne/optim/rules.h"
#include "mnemosyne/optim/weights.h"

namespace mnemosyne::optim {
namespace {

RuleOptions step_defaults(const MnemosyneOptions& options) {
  return RuleOptions()
      .lr(options.lr)
      .weight_decay(options.weight_decay)
      .num_steps(options.num_steps)
      .orthogonal(options.orthogonal);
}

}  // namespace

std::shared_ptr<UpdateRule> mnemosyne_rule(const MnemosyneOptions& options) {
  const std::string own = options.variant.empty() ? "mnemosyne" : "mnemosyne-" + options.variant;
  std::shared_ptr<UpdateRule> rule = default_rule(own);
  const std::string name = rule->name();  // that of the default rule for other weights of it
  if (options.weights != "default") rule = load_rule(options.weights);
  if (rule->name() != name) {
    throw InputError("[Mnemosyne] expected weights of \"" + name + "\", got \"" + rule->name() +
                     "\" in " + options.weights);
  }
  return options.learned ? rule : with_options(*rule, R"({"learned": false})");
}

Mnemosyne::Mnemosyne(std::vector<at::Tensor> params, const MnemosyneOptions& options)
    : RuleOptimizer(std::move(params), mnemosyne_rule(options), step_defaults(options)) {}

Mnemosyne::Mnemosyne(const std::vector<torch::optim::OptimizerParamGroup>& groups,
                     const MnemosyneOptions& options)
    : RuleOptimizer(groups, mnemosyne_rule(options), step_defaults(options)) {}

}  // namespace mnemosyne::optim
