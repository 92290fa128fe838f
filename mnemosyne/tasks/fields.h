#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace mnemosyne::tasks {

/// Length in bytes of the white space at the front of a UTF-8 text, one character of it as Python's
/// str.isspace() has them; 0 where the text starts with something else.
size_t blank_size(std::string_view text);

/// Without the white space at both ends.
std::string_view trimmed(std::string_view text);

/// What stands between white space; words behind the first `most` are left out.
std::vector<std::string_view> split_words(std::string_view text, size_t most);

/// A number as Python's float() reads it, NaN and infinities included; nothing for Fortran's "1D3",
/// hexadecimal numbers, digits with "_" between them, and numbers too near to zero for a double.
std::optional<double> parse_number(std::string_view text);

/// A whole number as Python's int() reads it, in decimal digits.
std::optional<int64_t> parse_integer(std::string_view text);

}  // namespace mnemosyne::tasks
