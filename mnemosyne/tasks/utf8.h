#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace mnemosyne::tasks {

/// One character of a text: its code point, and how many bytes it takes in UTF-8.
struct Utf8Character {
  uint32_t point = 0;
  size_t length = 0;
};

/// Code points are below this.
inline constexpr uint32_t kCodePoints = 0x110000;

/// The character that `bytes` begin with, control characters included; nothing when they are empty
/// or no well-formed UTF-8 (RFC 3629: no overlong forms, no surrogates).
std::optional<Utf8Character> first_character(std::string_view bytes);

/// Whether the bytes are well-formed UTF-8 without control characters other than tab, vertical tab
/// and form feed.
bool is_utf8(std::string_view bytes);

}  // namespace mnemosyne::tasks
