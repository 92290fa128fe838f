#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace mnemosyne::ops {

/// The tensor under the wrappers of torch.func: the numbers of all examples of vmap.
at::Tensor unwrapped(const at::Tensor& x);

/// Whether the tensor stands for others, those of the program that torch.compile or torch.export
/// make of what is called: it has no numbers that could be read.
bool is_traced(const at::Tensor& x);

/// The largest number of a tensor that is not traced, under torch.func.vmap of all examples.
double largest_number(const at::Tensor& x);

/// Refuses (c10::Error) a number, a tensor without axes, that is above `limit`; NaN passes. Under
/// torch.func.vmap, a number of any example.
///
/// On the CPU the line is `expected`, ", got ", `what` and the number. On CUDA nothing is read back
/// to the host: as for an index out of range, an assertion on the device fails with `expected` as
/// its text, and the next call that waits for the device raises. A program that is traced gets the
/// same assertion as a step. Elsewhere the number is read; tensors of the meta device have none.
void check_at_most(const at::Tensor& number, double limit, const std::string& expected,
                   const std::string& what = "");

}  // namespace mnemosyne::ops
