#include "mnemosyne/tasks/data/utf8.h"

#include <algorithm>
#include <string>

#include "mnemosyne/tasks/data/bytes.h"

namespace mnemosyne::tasks {

std::optional<Utf8Character> first_character(std::string_view bytes) {
  if (bytes.empty()) return {};
  const auto first = static_cast<unsigned char>(bytes.front());
  const size_t length = first < 0x80   ? 1
                        : first < 0xc0 ? 0
                        : first < 0xe0 ? 2
                        : first < 0xf0 ? 3
                        : first < 0xf8 ? 4
                                       : 0;
  if (length == 0 || length > bytes.size()) return {};
  uint32_t point = length == 1 ? first : first & (0xff >> (length + 1));
  for (size_t k = 1; k < length; ++k) {
    const auto next = static_cast<unsigned char>(bytes[k]);
    if ((next & 0xc0) != 0x80) return {};
    point = point << 6 | (next & 0x3f);
  }
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = point >= 0xd800 && point < 0xe000;
  if (point < kSmallest[length] || point >= kCodePoints || surrogate) return {};
  return Utf8Character{point, length};
}

void ZeroBytes::add(std::string_view bytes) {
  zeros_ += static_cast<size_t>(std::count(bytes.begin(), bytes.end(), '\0'));
  bytes_ += bytes.size();
}

void ZeroBytes::check(const std::string& name) const {
  constexpr size_t kShare = 10;
  if (zeros_ * kShare <= bytes_) return;
  refuse_data(
      name, "UTF-8 text",
      std::to_string(zeros_) + " zero bytes (as UTF-16 has) among " + std::to_string(bytes_));
}

}  // namespace mnemosyne::tasks
