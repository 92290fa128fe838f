#pragma once

namespace mnemosyne::nn {

/// Which attention takes a position encoding.
enum class PositionUse { kLinear, kSoftmax, kBoth };

/// What a position encoding is called: `kNames` of its options.
struct PositionNames {
  const char* name;  ///< In AttentionOptions.
  const char* type;  ///< In files and in Python.
  PositionUse use;

  constexpr bool is_for(bool linear) const {
    return use == PositionUse::kBoth || (use == PositionUse::kLinear) == linear;
  }
};

}  // namespace mnemosyne::nn
