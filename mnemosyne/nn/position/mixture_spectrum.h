#pragma once

#include <ATen/core/Tensor.h>

#include "mnemosyne/nn/module_tensors.h"
#include "mnemosyne/nn/position/frequency_draws.h"
#include "mnemosyne/nn/position/position_spectrum.h"

namespace mnemosyne::nn {

/// f(z) = sum_t A_t k_t(z) cos(2 pi mu_t.z + alpha_t): "gaussian_mixture" and "shift_invariant".
///
/// k_t is a positive definite kernel of frequency scale sigma_t = 1 / (2 pi w_t), w_t its width:
/// exp(-|z|^2 / (2 w^2)), exp(-|z|_1 / w) or Matern(|z| / w). By Bochner its transform is a density
/// with draws sigma_t eps, so xi_tj = mu_t + sigma_t eps_tj and c_tj = A_t / n estimate f without
/// importance weights: unbiased, |estimate| <= sum |A_t|, differentiable in everything.
///
/// Rotation-invariant: mu_t becomes a radius m_t times random directions, and the wave its mean
/// over the sphere, sin(2 pi m |z|) / (2 pi m |z|).
class MixtureSpectrum final : public PositionSpectrum {
 public:
  explicit MixtureSpectrum(const FourierPositionOptions& options);

  at::Tensor mask(const at::Tensor& offsets) const override;
  ops::SpectralSum sum() const override;
  int64_t num_waves() const override { return draws.size(1) * draws.size(2); }

  at::Tensor amplitude;   ///< A, [H, T].
  at::Tensor log_sigma;   ///< [H, T].
  at::Tensor centre;      ///< mu, [H, T, D]; m [H, T] when rotation-invariant; or undefined.
  at::Tensor phase;       ///< alpha, [H, T], or undefined.
  at::Tensor draws;       ///< eps, [H, T, n, D], float64, frozen.
  at::Tensor directions;  ///< [H, T, n, 3], float64, frozen; when rotation-invariant.

  std::vector<at::Tensor*> tensor_fields() override {
    return {&amplitude, &log_sigma, &centre, &phase, &draws, &directions};
  }

 private:
  at::Tensor profile(const at::Tensor& offsets) const;

  std::string kernel_;
  double nu_;
};

}  // namespace mnemosyne::nn
