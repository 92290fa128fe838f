#include "mnemosyne/io/crc32c.h"

#include <array>

namespace mnemosyne::io {

uint32_t crc32c(std::string_view bytes, uint32_t before) {
  static const std::array<uint32_t, 256> table = [] {
    std::array<uint32_t, 256> result{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t crc = i;
      for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0);
      result[i] = crc;
    }
    return result;
  }();
  uint32_t crc = ~before;
  for (const char c : bytes) crc = table[(crc ^ static_cast<uint8_t>(c)) & 255] ^ (crc >> 8);
  return ~crc;
}

}  // namespace mnemosyne::io
