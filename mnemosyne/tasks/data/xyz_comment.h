#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mnemosyne::tasks {

/// One entry of an extended XYZ comment line.
struct CommentEntry {
  std::string key;
  std::optional<std::string> value;  ///< None where the key stands alone.
};

/// A comment line taken apart as ASE's reader does (ase/io/extxyz.py, key_val_str_to_dict), quotes
/// and escapes removed: entries stand between white space, a key before "=", which may have white
/// space around it, its value behind; '...', "...", {...} and [...] hold white space, "=" and other
/// quotes together, in keys too, and one that is never closed reaches to the end; a backslash takes
/// the next character as it is. Nothing for a line that starts with "=".
///
///     parse_comment(R"(energy = -1.5 note="energy=5 \" quoted" flag)");   // three entries
std::optional<std::vector<CommentEntry>> parse_comment(std::string_view comment);

}  // namespace mnemosyne::tasks
