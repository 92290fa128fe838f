#pragma once

#include <ATen/core/Tensor.h>

namespace mnemosyne::ops {

// Functions of a distance that have finite derivatives of every order at zero, where every token is
// from itself. The norm of ATen has a second derivative of NaN there.

/// The Euclidean length of z [..., D]: [...]. At z = 0 all derivatives are 0.
at::Tensor distance(const at::Tensor& z);

/// sin(pi x) / (pi x) as a function of x^2 >= 0, in which it is smooth.
at::Tensor sinc_of_square(const at::Tensor& square);

}  // namespace mnemosyne::ops
