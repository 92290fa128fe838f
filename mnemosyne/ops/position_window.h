#pragma once

#include <ATen/core/Tensor.h>

namespace mnemosyne::ops {

/// Local windows of half-width v in R^D (1 inside, 0 outside; the tent falls linearly from 1 to 0):
///
///     kDirichlet  |z| <= v at integer offsets, D = 1
///     kTent       prod_i max(0, 1 - |z_i| / v)
///     kBox        all |z_i| <= v
///     kL2Ball     |z|_2 <= v, D <= 3
///     kL1Ball     |z|_1 <= v, D <= 2
///
/// A hard window has no estimator of finite variance on continuous positions (its transform is not
/// integrable), so the last three are smoothed: convolved with a Gaussian of standard deviation
/// tau.
enum class WindowShape { kDirichlet, kTent, kBox, kL2Ball, kL1Ball };

/// The value at offsets [..., D] of windows of half-widths `widths` [T]: [..., T], float64. `tau`
/// [T] is the smoothing of the last three shapes.
at::Tensor window_mask(WindowShape shape, const at::Tensor& offsets, const at::Tensor& widths,
                       const at::Tensor& tau);

/// The transform of the window without smoothing, g(xi) = int w(z) exp(-2 pi i xi.z) dz, at
/// frequencies [..., D] for widths that broadcast against [...]: [...], float64. kDirichlet is the
/// sum over integer offsets instead.
at::Tensor window_spectrum(WindowShape shape, const at::Tensor& frequencies,
                           const at::Tensor& widths);

}  // namespace mnemosyne::ops
