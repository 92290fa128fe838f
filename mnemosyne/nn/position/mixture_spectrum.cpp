#include "mnemosyne/nn/position/mixture_spectrum.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <numbers>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/ops/distance.h"

namespace mnemosyne::nn {
namespace {

constexpr double kTwoPi = 2.0 * std::numbers::pi;
// Seeds of one module's different draws are apart.
constexpr uint64_t kCentreSeed = 0x51ED2701;
constexpr uint64_t kDirectionSeed = 0x2545F491;
constexpr uint64_t kPhaseSeed = 0x1234567;

FrequencyLaw law_of(const std::string& kernel) {
  static const Choices<FrequencyLaw> laws = {{"gaussian", FrequencyLaw::kGaussian},
                                             {"laplace", FrequencyLaw::kCauchy},
                                             {"matern", FrequencyLaw::kStudent}};
  return one_of("kernel", kernel, laws);
}

int64_t degrees_of(double nu) {
  if (nu != 0.5 && nu != 1.5 && nu != 2.5) {
    throw InputError("[matern_nu] expected 0.5, 1.5 or 2.5, got " + std::to_string(nu));
  }
  return std::lround(2.0 * nu);
}

}  // namespace

MixtureSpectrum::MixtureSpectrum(const FourierPositionOptions& o)
    : kernel_(o.kind == "gaussian_mixture" ? "gaussian" : o.kernel), nu_(o.matern_nu) {
  const int64_t heads = o.num_heads, terms = o.num_components;
  if (o.num_frequencies % terms != 0) {
    throw InputError("[num_frequencies] expected a multiple of num_components (" +
                     std::to_string(terms) + "), got " + std::to_string(o.num_frequencies));
  }
  const int64_t count = o.num_frequencies / terms;
  const bool centred = o.kind == "gaussian_mixture";
  const at::TensorOptions wide = at::TensorOptions(at::kDouble);
  const at::Tensor sigma = (1.0 / (kTwoPi * log_spaced_widths(o))).expand({heads, terms});
  amplitude = register_parameter(
      "amplitude", at::full({heads, terms}, o.initial_amplitude / static_cast<double>(terms),
                            at::TensorOptions(at::kFloat)));
  log_sigma = register_parameter("log_sigma", sigma.log().to(at::kFloat));
  if (centred) {
    // Not zero: there the exact mask has no gradient in the centres.
    const at::Generator generator = tensor_generator(*o.seed ^ kCentreSeed);
    const at::Tensor start =
        o.rotation_invariant
            ? at::randn({heads, terms}, generator, wide).abs() * sigma
            : at::randn({heads, terms, o.position_dim}, generator, wide) * sigma.unsqueeze(-1);
    centre = register_parameter("centre", start.to(at::kFloat));
  }
  if (o.phase) {
    // No two alike, so that heads look to different sides from the start.
    const at::Generator generator = tensor_generator(*o.seed ^ kPhaseSeed);
    phase = register_parameter("phase", at::randn({heads, terms}, generator, wide).to(at::kFloat));
  }
  draws = register_buffer("draws", draw_frequencies({.law = law_of(kernel_),
                                                     .kind = draw_kind(o.draws),
                                                     .groups = heads * terms,
                                                     .count = count,
                                                     .dim = o.position_dim,
                                                     .degrees = degrees_of(nu_),
                                                     .even = !centred,
                                                     .seed = *o.seed})
                                       .view({heads, terms, count, o.position_dim}));
  if (o.rotation_invariant) {
    const at::Tensor normals = draw_frequencies({.kind = draw_kind(o.draws),
                                                 .groups = heads * terms,
                                                 .count = count,
                                                 .dim = 3,
                                                 .seed = *o.seed ^ kDirectionSeed});
    directions = register_buffer(
        "directions",
        (normals / normals.norm(2, {-1}, /*keepdim=*/true)).view({heads, terms, count, 3}));
  }
}

// k_t(z) [H, T, P].
at::Tensor MixtureSpectrum::profile(const at::Tensor& z) const {
  const at::Tensor scale = at_least_float(log_sigma).exp().unsqueeze(-1) * kTwoPi;  // 1 / width
  if (kernel_ == "gaussian") return (-0.5 * scale.square() * z.square().sum(-1)).exp();
  if (kernel_ == "laplace") return (-scale * z.abs().sum(-1)).exp();
  const double stretch = std::sqrt(2.0 * nu_);
  if (nu_ == 0.5) return (-scale * ops::distance(z) * stretch).exp();
  // Twice differentiable at zero, where the root is not: a start at rounding.
  const double start = z.scalar_type() == at::kDouble ? 1e-16 : 1e-7;
  const at::Tensor x = ((scale * stretch).square() * z.square().sum(-1) + start).sqrt();
  const at::Tensor polynomial = nu_ == 1.5 ? 1.0 + x : 1.0 + x + x.square() / 3.0;
  return polynomial * (-x).exp();
}

at::Tensor MixtureSpectrum::mask(const at::Tensor& offsets) const {
  const at::Tensor weight = at_least_float(amplitude).unsqueeze(-1);
  const at::Tensor z = offsets.to(weight.scalar_type());
  at::Tensor terms = weight * profile(z);
  if (directions.defined()) {
    const at::Tensor turns = 2.0 * at_least_float(centre).unsqueeze(-1);
    terms = terms * ops::sinc_of_square(turns.square() * z.square().sum(-1));
  } else if (centre.defined()) {
    at::Tensor angle = kTwoPi * at::matmul(at_least_float(centre), z.t());  // [H, T, P]
    if (phase.defined()) angle = angle + at_least_float(phase).unsqueeze(-1);
    terms = terms * angle.cos();
  }
  return terms.sum(1);
}

ops::SpectralSum MixtureSpectrum::sum() const {
  const int64_t heads = draws.size(0), terms = draws.size(1), count = draws.size(2);
  const at::Tensor weight = at_least_float(amplitude) / static_cast<double>(count);
  const auto dtype = weight.scalar_type();
  const auto spread = [&](const at::Tensor& t) {
    return t.unsqueeze(-1).expand({heads, terms, count}).reshape({heads, terms * count});
  };
  at::Tensor xi = at_least_float(log_sigma).exp().unsqueeze(-1).unsqueeze(-1) * draws.to(dtype);
  if (directions.defined()) {
    xi = xi + at_least_float(centre).unsqueeze(-1).unsqueeze(-1) * directions.to(dtype);
  } else if (centre.defined()) {
    xi = xi + at_least_float(centre).unsqueeze(2);
  }
  ops::SpectralSum result{xi.reshape({heads, terms * count, -1}), spread(weight), {}, {}};
  if (phase.defined()) {
    const at::Tensor angle = at_least_float(phase);
    result.cosine = spread(weight * angle.cos());
    result.sine = spread(-weight * angle.sin());
  }
  return result;
}

}  // namespace mnemosyne::nn
