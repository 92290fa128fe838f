#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mnemosyne::nn {

// Patterns xi of N spins in {-1, 1} and the energy E(s) = -sum_mu c_mu exp(beta <xi_mu, s>): a
// sweep sets every spin of a state to the sign of lower energy, the others as they were. Demircigil
// et al. 2017 (arXiv 1702.01929); Ramsauer et al. 2020 (arXiv 2008.02217) for real vectors.
//
// One sweep is one read of softmax attention whose keys and values are the patterns:
//
//     s_i <- sign(o_i - tanh(beta) s_i),  o = sum_mu c_mu e^(beta <xi_mu, s>) xi_mu / sum of
//     weights
//
// since E(s, s_i = -1) - E(s, s_i = 1) = 2 sinh(beta) sum_mu c_mu xi_mu,i e^(beta (<xi_mu, s> -
// xi_mu,i s_i)) and e^(-beta xi_i s_i) = cosh(beta) - xi_i s_i sinh(beta).

/// M random patterns [M, N], float64, the same for the same seed.
at::Tensor random_patterns(int64_t patterns, int64_t spins, uint64_t seed);

/// States [B, N] with `flips` random spins of each turned; InputError when there are not as many.
at::Tensor flip_spins(const at::Tensor& states, int64_t flips, uint64_t seed);

/// The smallest number of spins in which two patterns differ; N for a single pattern.
int64_t smallest_distance(const at::Tensor& patterns);

/// One sweep of the exact energy over states [B, N] with patterns [M, N] of weights c [M], given as
/// their logarithms.
at::Tensor sweep(const at::Tensor& patterns, const at::Tensor& log_weights, double beta,
                 const at::Tensor& states);

/// The signs of fields [...], 1 where a field is zero.
at::Tensor signs(const at::Tensor& field);

/// ln of the bound on M - 1: where all patterns differ in at least `distance` spins and M - 1 <
/// exp(beta (2 (distance - 2 flips) - 2)), a sweep restores every pattern of which up to `flips`
/// spins were turned. With distance = rho N and flips = rho' N: exp(beta (2 N (rho - 2 rho') - 2)).
double log_capacity_bound(int64_t distance, int64_t flips, double beta);

/// The most flips for which the bound holds; -1 where it does not hold even for none.
int64_t guaranteed_flips(int64_t patterns, int64_t distance, double beta);

}  // namespace mnemosyne::nn
