#pragma once

#include <cstdint>

/// bfloat16 as its bits, the upper half of those of float.
namespace mnemosyne::kernels::CPU_CAPABILITY {

inline float from_bfloat16(uint16_t x) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(x) << 16);
}

/// To nearest, ties to even; of what is no NaN.
inline uint16_t to_bfloat16(float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

/// ops::rounding_bits.
inline uint32_t rounding_bits(uint32_t index, uint32_t seed) {
  uint32_t x = (index * 0x9E3779B9u) ^ seed;
  x ^= x >> 16;
  x *= 0x7FEB352Du;
  x ^= x >> 15;
  x *= 0x846CA68Bu;
  x ^= x >> 16;
  return x & 0xFFFF;
}

inline void unpack(const uint16_t* packed, int64_t size, float* values) {
#pragma GCC ivdep
  for (int64_t i = 0; i < size; ++i) values[i] = from_bfloat16(packed[i]);
}

/// ops::round_at_random; `begin` is the index of the first one in its tensor.
inline void pack_at_random(const float* values, int64_t size, int64_t begin, uint32_t seed,
                           uint16_t* packed) {
  const uint32_t first = static_cast<uint32_t>(begin);
#pragma GCC ivdep
  for (int64_t i = 0; i < size; ++i) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, values[i]);
    packed[i] =
        static_cast<uint16_t>((bits + rounding_bits(first + static_cast<uint32_t>(i), seed)) >> 16);
  }
}

}  // namespace mnemosyne::kernels::CPU_CAPABILITY
