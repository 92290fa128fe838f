#include "mnemosyne/optim/rules.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "mnemosyne/core/error.h"
#include "mnemosyne/core/registry.h"
#include "mnemosyne/optim/adafactor.h"
#include "mnemosyne/optim/adam.h"
#include "mnemosyne/optim/amuse.h"
#include "mnemosyne/optim/compact.h"
#include "mnemosyne/optim/coordinate.h"
#include "mnemosyne/optim/lstm.h"
#include "mnemosyne/optim/mnemosyne_rule.h"
#include "mnemosyne/optim/muon.h"
#include "mnemosyne/optim/normuon.h"
#include "mnemosyne/optim/orthogonal.h"
#include "mnemosyne/optim/schedule_free.h"
#include "mnemosyne/optim/sgd.h"
#include "mnemosyne/optim/super.h"
#include "mnemosyne/optim/tensorwise.h"

namespace mnemosyne::optim {
namespace {

using RuleRegistry = Registry<std::shared_ptr<UpdateRule>(const std::string& options_json)>;

// Every rule: one line here, one make_X(options_json) beside the rule.
const RuleRegistry& registry() {
  static const RuleRegistry rules("optimizer", {
                                                   {"adafactor", make_adafactor},
                                                   {"adam", make_adam},
                                                   {"adamw", make_adamw},
                                                   {"amuse", make_amuse},
                                                   {"lstm", make_lstm},
                                                   {"lstm-rnnprop", make_lstm_rnnprop},
                                                   {"mnemosyne", make_mnemosyne_rule},
                                                   {"mnemosyne-compact", make_compact_rule},
                                                   {"mnemosyne-coordinate", make_coordinate_rule},
                                                   {"mnemosyne-super", make_super_rule},
                                                   {"mnemosyne-tensor", make_tensorwise_rule},
                                                   {"muon", make_muon},
                                                   {"normuon", make_normuon},
                                                   {"orthogonal", make_orthogonal_rule},
                                                   {"schedule-free", make_schedule_free},
                                                   {"sgd", make_sgd},
                                               });
  return rules;
}

}  // namespace

std::shared_ptr<UpdateRule> make_rule(const std::string& name, const std::string& options_json) {
  return registry().get(name)(options_json);
}

std::vector<std::string> rule_names() { return registry().names(); }

std::shared_ptr<UpdateRule> with_options(const UpdateRule& rule, const std::string& changes,
                                         const std::string& source) {
  const auto changed = nlohmann::json::parse(changes, nullptr, /*allow_exceptions=*/false);
  if (!changed.is_object()) {
    throw InputError("[" + source + "] expected a JSON object, got " + changes);
  }
  auto options = nlohmann::json::parse(rule.options_json());
  options.update(changed);
  const std::shared_ptr<UpdateRule> result = make_rule(rule.name(), options.dump());
  NamedTensors weights = result->weights();
  if (weights.empty()) return result;
  const NamedTensors own = rule.weights();
  const WeightAxes from = rule.weight_axes(), to = result->weight_axes();
  for (auto& [name, weight] : weights) {
    const auto known = std::ranges::find(own, name, &NamedTensors::value_type::first);
    if (known == own.end()) continue;
    const auto own_names = from.find(name), names = to.find(name);
    const bool named = own_names != from.end() && names != to.end();
    weight =
        named ? fit_axes(known->second, own_names->second, names->second, name) : known->second;
  }
  return result->with_weights(weights);
}

}  // namespace mnemosyne::optim
