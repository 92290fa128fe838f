#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/where.h>

#include <limits>

namespace mnemosyne::optim {

/// A memory [B,S] in which streams that are not finite begin anew.
inline at::Tensor finite_streams(const at::Tensor& memory) {
  const at::Tensor finite =
      memory.abs().amax(1, /*keepdim=*/true) < std::numeric_limits<double>::infinity();
  return at::where(finite, memory, 0.0);
}

}  // namespace mnemosyne::optim
