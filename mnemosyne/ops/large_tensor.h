#pragma once

#include <ATen/core/Tensor.h>

namespace mnemosyne::ops {

/// An uninitialised float32 tensor on the CPU for a result that is made anew at every call.
///
/// Beyond a size the C library gives memory back to the system with every tensor and gets it again
/// a page of 4 KiB at a time, which costs linear attention a fifth of its time; so large tensors
/// ask for huge pages, where the system has them on request (Linux, transparent_hugepage
/// "madvise").
at::Tensor empty_large(at::IntArrayRef sizes);

}  // namespace mnemosyne::ops
