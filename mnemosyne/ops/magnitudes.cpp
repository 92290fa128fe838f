#include "mnemosyne/ops/magnitudes.h"

#include <bit>
#include <cstring>

namespace mnemosyne::ops {

bool magnitudes_within(const float* values, int64_t size, float largest) {
  const auto limit = std::bit_cast<int32_t>(largest);
  int32_t beyond = 0;
  for (int64_t i = 0; i < size; ++i) {
    int32_t bits;
    std::memcpy(&bits, values + i, sizeof bits);
    beyond |= (bits & 0x7fffffff) > limit ? 1 : 0;
  }
  return beyond == 0;
}

}  // namespace mnemosyne::ops
