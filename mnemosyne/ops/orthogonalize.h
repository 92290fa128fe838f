#pragma once

#include <ATen/core/Tensor.h>

namespace mnemosyne::ops {

/// The orthogonal polar factor of every matrix of x [..., M, N], by singular value decomposition: U V^T for
/// x = U S V^T, singular values that are zero stay zero. Slow, exact: the definition, and for tests.
at::Tensor orthogonalize_exact(const at::Tensor& x);

/// The same by a fixed number of matrix polynomials in plain ATen: singular values land near 1.
/// Any leading dimensions, any strides; the scale of x does not matter; zero matrices stay zero.
at::Tensor orthogonalize_reference(const at::Tensor& x);

/// `orthogonalize_reference` in place over many float32 matrices at once: batched over equal shapes,
/// parallel over the rest, without allocating after the first call of a thread with these shapes.
/// Every matrix is 2-d and contiguous, on the CPU.
void orthogonalize_(at::TensorList matrices);

}  // namespace mnemosyne::ops
