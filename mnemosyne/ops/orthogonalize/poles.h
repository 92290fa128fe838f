#pragma once

#include <array>

namespace mnemosyne::ops {

/// Weights and poles of the sign on [5e-4, 1], made by scripts/zolotarev.py.
inline constexpr std::array<float, 3> kWeights = {2.22659903e-03F, 4.24325804e-02F,
                                                  9.86857640e-01F};
inline constexpr std::array<float, 3> kPoles = {1.12812575e-06F, 5.00000000e-04F, 2.21606501e-01F};

}  // namespace mnemosyne::ops
