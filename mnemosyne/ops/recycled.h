#pragma once

#include <ATen/core/Tensor.h>

namespace mnemosyne::ops {

/// An uninitialised contiguous tensor of the sizes and dtype of `like`, on the CPU, whose memory is
/// kept for the next call when the last reference to it goes.
///
/// Every window of meta-training makes the same large tensors again. Given back to the system, each
/// of them costs a page fault per 4 KiB, which takes longer than the arithmetic on it. At most 512
/// MiB are kept; what is beyond that is freed at once.
at::Tensor recycled_like(const at::Tensor& like);

}  // namespace mnemosyne::ops
