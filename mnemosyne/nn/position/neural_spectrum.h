#pragma once

#include <ATen/core/Tensor.h>

#include "mnemosyne/nn/module_tensors.h"
#include "mnemosyne/nn/position/position_spectrum.h"

namespace mnemosyne::nn {

/// f(z) = 1/R sum_r a(xi_r) cos(2 pi xi_r.z + alpha(xi_r)): "neural".
///
/// a and alpha are the even and the odd part of a network of the frequency, tanh(W1 u + b1) and a
/// linear layer, u = asinh(xi / sigma_0) / 2 with sigma_0 the smallest scale: odd in xi, and
/// logarithmic, as the frequencies are. They are drawn once from Gaussians whose scale is
/// log-uniform between 1 / (2 pi max_width) and 1 / (2 pi min_width), shared by the heads. The sum
/// over them is the definition of f; over their law it estimates the integral with spectrum a times
/// the density.
class NeuralSpectrum final : public PositionSpectrum {
 public:
  explicit NeuralSpectrum(const FourierPositionOptions& options);

  at::Tensor mask(const at::Tensor& offsets) const override;
  ops::SpectralSum sum() const override;
  int64_t num_waves() const override { return frequencies.size(1); }

  /// Amplitude and phase [H, P] of the network at frequencies [P, D]; no phase without the option.
  std::pair<at::Tensor, at::Tensor> spectrum(const at::Tensor& frequencies) const;

  at::Tensor weight1, bias1;  ///< [hidden, D], [hidden].
  at::Tensor weight2, bias2;  ///< [C, hidden], [C]; C = H, or 2 H with phases after amplitudes.
  at::Tensor frequencies;     ///< [1, R, D], float64, frozen.

  std::vector<at::Tensor*> tensor_fields() override {
    return {&weight1, &bias1, &weight2, &bias2, &frequencies};
  }

 private:
  at::Tensor network(const at::Tensor& input) const;

  int64_t heads_;
  bool phase_;
  double smallest_scale_;
};

}  // namespace mnemosyne::nn
