#include "mnemosyne/nn/position/neural_spectrum.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/asinh.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/special_ndtr.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <numbers>

#include "mnemosyne/core/error.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/nn/position/frequency_draws.h"

namespace mnemosyne::nn {
namespace {

constexpr double kTwoPi = 2.0 * std::numbers::pi;
constexpr uint64_t kWeightSeed = 0x6A09E667;

}  // namespace

NeuralSpectrum::NeuralSpectrum(const FourierPositionOptions& o)
    : heads_(o.num_heads), phase_(o.phase), smallest_scale_(1.0 / (kTwoPi * o.max_width)) {
  if (o.hidden < 1) {
    throw InputError("[hidden] expected a positive number, got " + std::to_string(o.hidden));
  }
  const at::Generator generator = tensor_generator(*o.seed ^ kWeightSeed);
  const double fan_in = 1.0 / std::sqrt(static_cast<double>(o.position_dim));
  const int64_t outputs = phase_ ? 2 * heads_ : heads_;
  const at::TensorOptions type = at::TensorOptions(at::kFloat);
  weight1 = register_parameter("weight1",
                               at::randn({o.hidden, o.position_dim}, generator, type) * fan_in);
  bias1 = register_parameter("bias1", at::randn({o.hidden}, generator, type));
  // Zero: no mask at the start, and a gradient in the last layer all the same.
  weight2 = register_parameter("weight2", at::zeros({outputs, o.hidden}, type));
  at::Tensor start = at::zeros({outputs}, type);
  start.narrow(0, 0, heads_).fill_(o.initial_amplitude);
  bias2 = register_parameter("bias2", start);
  // One more coordinate, made uniform, chooses the scale.
  const at::Tensor eps = draw_frequencies({.kind = draw_kind(o.draws),
                                           .groups = 1,
                                           .count = o.num_frequencies,
                                           .dim = o.position_dim + 1,
                                           .seed = *o.seed});
  const at::Tensor share = at::special_ndtr(eps.narrow(-1, o.position_dim, 1));
  const at::Tensor scale = smallest_scale_ * (share * std::log(o.max_width / o.min_width)).exp();
  frequencies = register_buffer("frequencies", eps.narrow(-1, 0, o.position_dim) * scale);
}

at::Tensor NeuralSpectrum::network(const at::Tensor& input) const {
  const at::Tensor hidden =
      at::linear(input, at_least_float(weight1), at_least_float(bias1)).tanh();
  return at::linear(hidden, at_least_float(weight2), at_least_float(bias2));
}

std::pair<at::Tensor, at::Tensor> NeuralSpectrum::spectrum(const at::Tensor& xi) const {
  const at::Tensor input =
      (at::asinh(xi / smallest_scale_) * 0.5).to(at_least_float(weight1).scalar_type());
  const at::Tensor plus = network(input), minus = network(-input);
  const at::Tensor even = (0.5 * (plus + minus)).narrow(-1, 0, heads_).t();
  if (!phase_) return {even, {}};
  return {even, (0.5 * (plus - minus)).narrow(-1, heads_, heads_).t()};
}

ops::SpectralSum NeuralSpectrum::sum() const {
  const auto [values, phase] = spectrum(frequencies[0]);
  const at::Tensor weight = values / static_cast<double>(frequencies.size(1));
  if (!phase.defined()) return {frequencies, weight, {}, {}};
  return {frequencies, weight * phase.cos(), -weight * phase.sin(), {}};
}

at::Tensor NeuralSpectrum::mask(const at::Tensor& offsets) const {
  return ops::fourier_sum(sum(), offsets);
}

}  // namespace mnemosyne::nn
