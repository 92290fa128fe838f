#include "mnemosyne/tasks/utf8.h"

#include <cstddef>
#include <cstdint>

namespace mnemosyne::tasks {
namespace {

bool is_control(unsigned char c) {
  return (c < ' ' && c != '\t' && c != '\v' && c != '\f') || c == 0x7f;
}

}  // namespace

bool is_utf8(std::string_view bytes) {
  for (size_t i = 0; i < bytes.size();) {
    const auto first = static_cast<unsigned char>(bytes[i]);
    if (is_control(first)) return false;
    const size_t length = first < 0x80   ? 1
                          : first < 0xc0 ? 0
                          : first < 0xe0 ? 2
                          : first < 0xf0 ? 3
                          : first < 0xf8 ? 4
                                         : 0;
    if (length == 0 || length > bytes.size() - i) return false;
    uint32_t point = length == 1 ? first : first & (0xff >> (length + 1));
    for (size_t k = 1; k < length; ++k) {
      const auto next = static_cast<unsigned char>(bytes[i + k]);
      if ((next & 0xc0) != 0x80) return false;
      point = point << 6 | (next & 0x3f);
    }
    constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
    if (point < kSmallest[length] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) {
      return false;
    }
    i += length;
  }
  return true;
}

}  // namespace mnemosyne::tasks
