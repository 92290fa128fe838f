#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
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

/// Counts the zero bytes of what was read as text.
class ZeroBytes {
 public:
  void add(std::string_view bytes);

  /// InputError that names the file when there are more of them than any text in UTF-8 has: letters
  /// in UTF-16 are half zero bytes, which UTF-8 allows.
  void check(const std::string& name) const;

 private:
  size_t zeros_ = 0, bytes_ = 0;
};

}  // namespace mnemosyne::tasks
