#pragma once

#include "mnemosyne/ops/orthogonalize/orthogonalize.h"

namespace mnemosyne::ops {

/// `orthogonalize_` of a list in batches, on any device: by polynomials in that precision, or
/// without one by `orthogonalize_reference`.
void orthogonalize_batches_(at::TensorList matrices, std::optional<at::ScalarType> precision);

}  // namespace mnemosyne::ops
