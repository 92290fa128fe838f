#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace mnemosyne::ops {

/// The orthogonal polar factor of every matrix of x [..., M, N], by singular value decomposition: U
/// V^T for x = U S V^T, singular values that are zero stay zero. Slow, exact: the definition, and
/// for tests.
at::Tensor orthogonalize_exact(const at::Tensor& x);

/// The same by an odd rational function of the singular values instead of their sign, in plain ATen
/// and double precision, returned in the dtype of x [..., M, N]: the specification of
/// `orthogonalize_`.
///
/// With G = X X^T (M <= N; a tall matrix is transposed first) and b >= |X|_2^2 the smaller of the
/// Frobenius norm and the largest absolute row sum of G,
///
///     result = sum_j a_j (G / b + c_j)^-1 X / sqrt(b),   three terms,
///
/// is the best approximation of its type (5, 6) to the sign on [5e-4, 1] (Zolotarev 1877; for polar
/// factors Nakatsukasa and Freund, SIAM Review 2016). A singular value s becomes a number in
/// [.85, 1.15] for s >= 5e-4 sqrt(b), and about 2,063 s / sqrt(b) far below; sqrt(b) is at most
/// sqrt(sqrt(M)) |X|_2. For comparison, five quintic Newton-Schulz steps as in Muon reach
/// [.68, 1.20] from about 3e-3 of the Frobenius norm on. Singular vectors stay, the scale of x does
/// not matter, zero matrices stay zero, a matrix that is not finite becomes NaN. Differentiable.
at::Tensor orthogonalize_reference(const at::Tensor& x);

/// The gradient by x of a function of `orthogonalize_reference(x)` whose gradient by that is
/// `grad`, in closed form, double precision and a dozen products: [..., M, N], of the dtype of x.
/// Not differentiable, and of no meaning for matrices that are not finite.
at::Tensor orthogonalize_backward(const at::Tensor& grad, const at::Tensor& x);

/// The polar factor by five quintic polynomials of X X^T in `precision`, the composition of Polar
/// Express (Amsel et al., arXiv 2505.16932) on [1e-3, 1] of the Frobenius norm: matrix products
/// alone, the way for a GPU. Singular values land in [.86, 1.14]; in bfloat16 those below about
/// 1e-2 of the largest suffer from its rounding. Five Newton-Schulz steps as in Muon cost the same
/// and reach
/// [.68, 1.20].
at::Tensor orthogonalize_polynomial(const at::Tensor& x, at::ScalarType precision = at::kBFloat16);

struct OrthogonalizeOptions {
  /// Of the polynomial. Unset: bfloat16 on CUDA, where products in it are up to sixteen times as
  /// fast and Muon's users have found it enough; float32 on other devices.
  std::optional<at::ScalarType> precision = {};
};

/// Orthogonalises every matrix of x [..., M, N], in the way of its device and dtype: float64 by
/// `orthogonalize_reference`; others on the CPU by its float32 in a kernel (`orthogonalize_`), on
/// other devices by `orthogonalize_polynomial`. Nothing is read back; not differentiable.
at::Tensor orthogonalize(const at::Tensor& x, const OrthogonalizeOptions& options = {});

/// The same in place for a list of matrices that do not overlap, every one 2-d and contiguous, all
/// of one device and dtype, float32 or float64:
///
///     at::Tensor a = at::randn({64, 128}), b = at::randn({32, 32});
///     ops::orthogonalize_({a, b});
///
/// Where there is no kernel, tall matrices are treated with wide ones, equal shapes in one product,
/// and small ones padded by zeros to larger ones where that costs less than products of their own;
/// the value of a matrix may then depend on the others by its rounding.
void orthogonalize_(at::TensorList matrices, const OrthogonalizeOptions& options = {});

/// A contiguous, row-major float32 matrix on the CPU, not owned.
struct MatrixRef {
  float* data;
  int64_t rows;
  int64_t columns;
};

/// `orthogonalize_reference` in place over many matrices that do not overlap, in float32: parallel
/// over matrices, in a workspace that each thread keeps. The value of a matrix depends neither on
/// the other matrices nor on the number of threads.
///
/// What is finite stays so. Rounding adds up to about .02 to the bounds of the reference: in some
/// thousand matrices made to be hard, singular values from s >= 5e-4 sqrt(b) came out in [.83,
/// 1.16], and none above (a layer of 32 x 32 in training reaches 1.157). Where float32 cannot tell
/// small eigenvalues of G from its own rounding (few rows of a long matrix that dominate it, or the
/// same number added again and again), which products with vectors of random signs show, those M x
/// M numbers are computed again in double precision.
void orthogonalize_(const MatrixRef* matrices, int64_t count);

}  // namespace mnemosyne::ops
