#pragma once

#include <ATen/core/Tensor.h>

namespace mnemosyne::ops {

/// `base.as_strided(sizes, strides)` from the `offset`-th number of `base` on, without the
/// dispatcher: a step over a list of hundreds of tensors needs a thousand views, which would take
/// longer than its arithmetic. Not differentiable, and unseen by modes and tracers.
at::Tensor raw_view(const at::Tensor& base, at::IntArrayRef sizes, at::IntArrayRef strides,
                    int64_t offset = 0);

/// The same, contiguous.
at::Tensor raw_view(const at::Tensor& base, at::IntArrayRef sizes, int64_t offset = 0);

}  // namespace mnemosyne::ops
