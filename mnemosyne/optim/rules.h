#pragma once

#include <memory>
#include <string>
#include <vector>

#include "mnemosyne/optim/update_rule.h"

namespace mnemosyne::optim {

/// The rule called `name`, with the fields of the JSON object in place of its defaults. A learned
/// rule has freshly initialised weights: see `default_rule` and `load_rule` (weights.h) for trained
/// ones.
///
///     auto rule = optim::make_rule("sgd", R"({"momentum": 0.8, "nesterov": true})");
///
/// Throws InputError, one line, for an unknown name (listing the known ones), an option that the
/// rule does not have (naming it), or a value of the wrong type or out of range.
std::shared_ptr<UpdateRule> make_rule(const std::string& name,
                                      const std::string& options_json = "{}");

/// All names that `make_rule` knows, sorted.
std::vector<std::string> rule_names();

}  // namespace mnemosyne::optim
