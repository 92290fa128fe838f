#include "mnemosyne/optim/mnemosyne.h"

#include <nlohmann/json.hpp>

#include "mnemosyne/core/error.h"
#include "mnemosyne/optim/rules.h"
#include "mnemosyne/optim/weights.h"

namespace mnemosyne::optim {
namespace {

std::shared_ptr<UpdateRule> without_learned_part(const UpdateRule& rule) {
  nlohmann::json options = nlohmann::json::parse(rule.options_json());
  options["learned"] = false;
  return make_rule(rule.name(), options.dump())->with_weights(rule.weights());
}

RuleOptions step_defaults(const MnemosyneOptions& options) {
  return RuleOptions()
      .lr(options.lr)
      .weight_decay(options.weight_decay)
      .num_steps(options.num_steps);
}

}  // namespace

std::shared_ptr<UpdateRule> mnemosyne_rule(const MnemosyneOptions& options) {
  const std::string name = options.variant.empty() ? "mnemosyne" : "mnemosyne-" + options.variant;
  auto rule = options.weights == "default" ? default_rule(name) : load_rule(options.weights);
  if (rule->name() != name) {
    throw InputError("[Mnemosyne] expected weights of \"" + name + "\", got \"" + rule->name() +
                     "\" in " + options.weights);
  }
  return options.learned ? rule : without_learned_part(*rule);
}

Mnemosyne::Mnemosyne(std::vector<at::Tensor> params, const MnemosyneOptions& options)
    : RuleOptimizer(std::move(params), mnemosyne_rule(options), step_defaults(options)) {}

Mnemosyne::Mnemosyne(const std::vector<torch::optim::OptimizerParamGroup>& groups,
                     const MnemosyneOptions& options)
    : RuleOptimizer(groups, mnemosyne_rule(options), step_defaults(options)) {}

}  // namespace mnemosyne::optim
