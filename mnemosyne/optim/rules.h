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

/// `rule` with the options of a JSON object in place of its own, and with its weights: those that
/// the options ask for beside them start as `make_rule` starts them, those of what they switch off
/// are left behind. Of weights whose rows and columns have names those that the options add are
/// zeros, so that nothing changes yet.
///
///     auto base = optim::with_options(*optim::default_rule("mnemosyne"), R"({"learned": false})");
///
/// InputError for text that is no JSON object, said to come from `source`, and for what are no
/// options of the rule.
std::shared_ptr<UpdateRule> with_options(const UpdateRule& rule, const std::string& changes,
                                         const std::string& source = "with_options");

}  // namespace mnemosyne::optim
