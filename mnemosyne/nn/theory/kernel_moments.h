#pragma once

#include <ATen/core/Tensor.h>

#include "mnemosyne/ops/feature_map.h"

namespace mnemosyne::nn {

// What random features are off by. One vector w ~ N(0, I) estimates exp(x.y) by k_w(x, y), the
// product of its features times M; M independent vectors are off by its deviation over sqrt(M).
// For the maps that estimate the kernel: "favor+", "hyp+", "trig" (`estimating_kind`).

/// Var k_w(x, y), [...] of x and y [..., D]. With s = |x+y|^2, d = |x-y|^2 and K = exp(x.y):
///
///     favor+  e^s K^2 (1 - e^-s)        hyp+  e^s K^2 (1 - e^-s)^2 / 2
///     trig    e^s K^-2 (1 - e^-d)^2 / 2
///
/// Choromanski et al. 2021 (arXiv 2009.14794).
at::Tensor estimate_variance(ops::FeatureMapKind kind, const at::Tensor& x, const at::Tensor& y);

/// E[k_w(x_i, y_i) k_w(x_j, y_j)], [..., J, J] of x and y [..., J, D]: all estimates share their
/// vectors. With u = x + y (trig: x - y), c = e^(-(|x_i|^2 + |y_i|^2 + |x_j|^2 + |y_j|^2) / 2):
///
///     favor+  c e^(|u_i + u_j|^2 / 2)
///     hyp+    c (e^(|u_i + u_j|^2 / 2) + e^(|u_i - u_j|^2 / 2)) / 2
///     trig    (e^(-|u_i + u_j|^2 / 2) + e^(-|u_i - u_j|^2 / 2)) / (2 c)
///
/// Its diagonal minus K^2 is the variance above.
at::Tensor estimate_moments(ops::FeatureMapKind kind, const at::Tensor& x, const at::Tensor& y);

/// What is read from a memory is a sum over what was written: mean and variance, of one vector, of
/// sum_j a_j k_w(x_j, y_j), each [..., C], for a [..., C, J], x and y [..., J, D].
struct SumOfEstimates {
  at::Tensor mean;      ///< sum_j a_j exp(x_j.y_j)
  at::Tensor variance;  ///< a^T E a - mean^2, over M for M vectors.
};

SumOfEstimates sum_of_estimates(ops::FeatureMapKind kind, const at::Tensor& a, const at::Tensor& x,
                                const at::Tensor& y);

}  // namespace mnemosyne::nn
