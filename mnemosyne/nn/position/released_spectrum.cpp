#include "mnemosyne/nn/position/released_spectrum.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <numbers>

#include "mnemosyne/core/error.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/nn/position/frequency_draws.h"

namespace mnemosyne::nn {
namespace {

constexpr double kTwoPi = 2.0 * std::numbers::pi;
constexpr uint64_t kCentreSeed = 0x51ED2701;

}  // namespace

ReleasedSpectrum::ReleasedSpectrum(const FourierPositionOptions& o) {
  if (o.initial_amplitude == 0.0) {
    throw InputError(
        "[initial_amplitude] expected a number other than 0 with released_code (no gradient leaves "
        "0), got 0");
  }
  const int64_t heads = o.num_heads, terms = o.num_components, dim = o.position_dim;
  const at::TensorOptions type = at::TensorOptions(at::kFloat);
  amplitude = register_parameter(
      "amplitude",
      at::full({heads, terms}, o.initial_amplitude / static_cast<double>(terms), type));
  const at::Generator generator = tensor_generator(*o.seed ^ kCentreSeed);
  centre = register_parameter("centre", at::randn({heads, terms, dim}, generator, type));
  log_square = register_parameter("log_square", at::zeros({heads, terms}, type));
  frequencies = register_buffer("frequencies", draw_frequencies({.kind = DrawKind::kIndependent,
                                                                 .groups = heads,
                                                                 .count = o.num_frequencies,
                                                                 .dim = dim,
                                                                 .seed = *o.seed}));
}

ops::SpectralSum ReleasedSpectrum::sum() const {
  const at::Tensor weight = at_least_float(amplitude);
  const at::Tensor xi = frequencies.to(weight.scalar_type());  // [H, R, D]
  const at::Tensor square =
      (xi.unsqueeze(2) - at_least_float(centre).unsqueeze(1)).square().sum(-1);  // [H, R, T]
  const at::Tensor terms =
      weight.unsqueeze(1) * (-square / at_least_float(log_square).exp().unsqueeze(1)).exp();
  const at::Tensor density = (-0.5 * xi.square().sum(-1)).exp() *
                             std::pow(kTwoPi, -0.5 * static_cast<double>(xi.size(-1)));
  const at::Tensor ratio = terms.sum(-1) / density / std::sqrt(static_cast<double>(xi.size(1)));
  return {frequencies, ratio.square(), {}, ratio};
}

at::Tensor ReleasedSpectrum::mask(const at::Tensor& offsets) const {
  return ops::fourier_sum(sum(), offsets);
}

}  // namespace mnemosyne::nn
