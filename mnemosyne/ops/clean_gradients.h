#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace mnemosyne::ops {

/// The largest magnitude of a gradient: its square is finite in float32.
inline constexpr double kLargestGradient = 1e18;

/// Copies of gradients of one device take their places: what is not finite becomes zero, magnitudes
/// beyond `kLargestGradient` (65504 in float16) are clipped. A handful of operations for each dtype
/// of the list, which read nothing back. Returns how many numbers were not finite, 0-d int64 on the
/// device.
at::Tensor clean_gradients(std::vector<at::Tensor>& grads);

/// Whether `clean_gradients` would change nothing of a gradient on the CPU: one look at its
/// numbers.
bool is_clean(const at::Tensor& grad);

}  // namespace mnemosyne::ops
