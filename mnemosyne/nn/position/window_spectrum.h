#pragma once

#include <ATen/core/Tensor.h>

#include "mnemosyne/nn/module_tensors.h"
#include "mnemosyne/nn/position/position_spectrum.h"
#include "mnemosyne/ops/position_window.h"

namespace mnemosyne::nn {

/// f(z) = sum_t A_t w_t(z), windows of fixed half-widths v_t with learned amplitudes: "local".
///
/// The Dirichlet window takes N = extent + 1 + max v equispaced frequencies, of which the R largest
/// (on average over the windows) are kept: exact at integer offsets up to the extent when R reaches
/// floor(N / 2) + 1, deterministic and not unbiased below. With independent draws its frequencies
/// are uniform on [-1/2, 1/2] instead, and unbiased. The tent is drawn from its own transform. Box
/// and balls are smoothed by tau = smoothing v and drawn from N(0, I / (2 pi tau)^2), with bounded
/// importance weights.
class WindowSpectrum final : public PositionSpectrum {
 public:
  explicit WindowSpectrum(const FourierPositionOptions& options);

  at::Tensor mask(const at::Tensor& offsets) const override;
  ops::SpectralSum sum() const override;
  int64_t num_waves() const override { return frequencies.size(1); }
  bool is_periodic() const override { return equispaced_; }

  at::Tensor amplitude;    ///< A, [H, T].
  at::Tensor widths;       ///< v, [T], float64, frozen.
  at::Tensor frequencies;  ///< [H, R, D] or [1, R, D], float64, frozen.
  at::Tensor weights;      ///< [H, T, R] or [1, T, R], float64, frozen: c = A weights.

  std::vector<at::Tensor*> tensor_fields() override {
    return {&amplitude, &widths, &frequencies, &weights};
  }

 private:
  void set_equispaced(const FourierPositionOptions& options);
  void set_drawn(const FourierPositionOptions& options);

  ops::WindowShape shape_;
  double smoothing_;
  bool equispaced_;
};

}  // namespace mnemosyne::nn
