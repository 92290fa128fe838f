#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mnemosyne::optim {

/// Muon's orthogonalisation of a matrix: a fixed number of steps of the quintic with coefficients
/// (3.4445, -4.7750, 2.0315) brings every singular value near 1, in the dtype of the matrix. Zeros
/// stay zeros. For what is ours, see `ops::orthogonalize`.
///
/// Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
at::Tensor newton_schulz(at::Tensor x, int64_t num_iterations);

}  // namespace mnemosyne::optim
