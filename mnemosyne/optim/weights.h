#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "mnemosyne/optim/update_rule.h"

namespace mnemosyne::optim {

/// The rule in a weights file: a safetensors file whose metadata name the rule and its options.
///
///     auto rule = optim::load_rule("mnemosyne.safetensors");
///
/// Files name what the rows and columns of weights belong to (`UpdateRule::weight_axes`): weights
/// of an earlier version, which looked at less or decided less, get zeros there. Those without
/// names need the shapes of this version.
///
/// Throws InputError, one line that names the file, for anything else than a complete file of
/// `save_rule` from this or an earlier version: truncated, foreign, hostile, with weights that are
/// missing, surplus, of another shape or not finite, or for features that are no more.
std::shared_ptr<UpdateRule> load_rule(const std::string& path);

/// Writes `rule` so that `load_rule` gives it back bit for bit. `metadata` is kept beside it, as
/// free text: how the weights were made, for example. Its keys must not be "format", "version",
/// "rule", "options" or "axes" (InputError).
void save_rule(const std::string& path, const UpdateRule& rule,
               const std::map<std::string, std::string>& metadata = {});

/// The rule `name` with the weights that are part of the library: "mnemosyne",
/// "mnemosyne-coordinate", "mnemosyne-tensor", "mnemosyne-super", "lstm", "lstm-rnnprop";
/// "mnemosyne-attention" is "mnemosyne" with attention, "mnemosyne-first" with its former weights,
/// "mnemosyne-compact" has less state. InputError where there are none of that name.
std::shared_ptr<UpdateRule> default_rule(const std::string& name);

/// The names that `default_rule` knows.
std::vector<std::string> default_rule_names();

/// 16 hexadecimal digits that identify a rule: its name, options and weights (names, shapes,
/// values). Equal on every machine; a checkpoint uses it to refuse other weights (FNV-1a, 64 bits).
/// Rows and columns of zeros that have a name (`UpdateRule::weight_axes`) do not count, so that a
/// version which looks at more, or decides more, gives older weights the same digits.
std::string weights_hash(const UpdateRule& rule);

}  // namespace mnemosyne::optim
