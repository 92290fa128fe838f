#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace mnemosyne::ops {

/// `base.as_strided(sizes, strides)` from the `offset`-th number of `base` on, without the
/// dispatcher: a step over a list of hundreds of tensors needs a thousand views, which would take
/// longer than its arithmetic. Not differentiable, and unseen by modes and tracers.
at::Tensor raw_view(const at::Tensor& base, at::IntArrayRef sizes, at::IntArrayRef strides,
                    int64_t offset = 0);

/// The same, contiguous.
at::Tensor raw_view(const at::Tensor& base, at::IntArrayRef sizes, int64_t offset = 0);

/// The parts `x[0]`, `x[1]`, ... of a contiguous tensor.
std::vector<at::Tensor> raw_unbind(const at::Tensor& x);

}  // namespace mnemosyne::ops
