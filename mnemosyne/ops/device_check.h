#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace mnemosyne::ops {

/// Refuses (c10::Error) a number, a tensor without axes, that is above `limit`; NaN passes.
///
/// On the CPU the line is `expected`, ", got ", `what` and the number. On CUDA nothing is read back
/// to the host: as for an index out of range, an assertion on the device fails with `expected` as
/// its text, and the next call that waits for the device raises. Elsewhere the number is read;
/// tensors of the meta device have none.
void check_at_most(const at::Tensor& number, double limit, const std::string& expected,
                   const std::string& what = "");

}  // namespace mnemosyne::ops
