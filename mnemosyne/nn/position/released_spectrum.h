#pragma once

#include <ATen/core/Tensor.h>

#include "mnemosyne/nn/module_tensors.h"
#include "mnemosyne/nn/position/position_spectrum.h"

namespace mnemosyne::nn {

/// The Gaussian mixture as the authors' released code computes it, for parity: frequencies from
/// N(0, I), spectrum g(xi) = sum_t w_t exp(-|xi - mu_t|^2 / s_t), and the full ratio g / p on the
/// query's and on the key's side. So it learns f(z) = 1/R sum_r (g / p)^2 cos(2 pi xi_r.z): always
/// positive definite, blind to the signs of w, and w = 0 is a saddle that no gradient leaves.
class ReleasedSpectrum final : public PositionSpectrum {
 public:
  explicit ReleasedSpectrum(const FourierPositionOptions& options);

  at::Tensor mask(const at::Tensor& offsets) const override;
  ops::SpectralSum sum() const override;
  int64_t num_waves() const override { return frequencies.size(1); }

  at::Tensor amplitude;    ///< w, [H, T].
  at::Tensor centre;       ///< mu, [H, T, D].
  at::Tensor log_square;   ///< log s, [H, T].
  at::Tensor frequencies;  ///< [H, R, D], float64, frozen.

  std::vector<at::Tensor*> tensor_fields() override {
    return {&amplitude, &centre, &log_square, &frequencies};
  }
};

}  // namespace mnemosyne::nn
