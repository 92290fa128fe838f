#pragma once

#include <optional>
#include <string>

namespace mnemosyne::meta {

/// A name with a number that is not negative, as options have them: "evolution=0.5".
struct NamedNumber {
  std::string name = {};
  double number = 1.0;
};

/// Reads "NAME=NUMBER", or "NAME" when there is a `missing` number for that. InputError that names
/// `option` for anything else and for a negative number.
NamedNumber parse_named_number(const std::string& text, const std::string& option,
                               std::optional<double> missing = {});

}  // namespace mnemosyne::meta
