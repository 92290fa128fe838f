#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mnemosyne::optim {

// N, K = rows and columns of a matrix, R = rank, at most the smaller of both.

/// left right^T, [N, K].
struct LowRank {
  at::Tensor left;   ///< [N, R], orthonormal columns; or all zeros, which stand for no matrix.
  at::Tensor right;  ///< [K, R]
};

/// left right^T.
at::Tensor product(const LowRank& factors);

/// A matrix x [N, K] close to the one that `before` stands for, by factors of the same rank: one
/// step of subspace iteration from those,
///
///     left = orthonormal basis of x right_before        right = x^T left
///
/// so that left right^T is the projection of x to the space that x itself makes of the former one.
/// A sequence of matrices that change slowly is followed at two products and a factorisation of
/// [N, R] a step (Vogels et al. 2019, arXiv 1905.13727, for gradients; for momentum MLorc, arXiv
/// 2506.01897). Columns of right_before that are zero, as all are in the beginning, look along
/// fixed waves instead. A rank that x does not have is filled with zeros. Scales of 1e-18 to 1e18
/// are as good as 1.
LowRank follow(const at::Tensor& x, const LowRank& before);

}  // namespace mnemosyne::optim
