#pragma once

#include <cstdint>

namespace mnemosyne::ops {

/// Whether no magnitude of `size` numbers is above `largest`, a finite number; that of NaN is above
/// all. By their bits: a loop over integers, which compilers vectorise.
bool magnitudes_within(const float* values, int64_t size, float largest);

}  // namespace mnemosyne::ops
