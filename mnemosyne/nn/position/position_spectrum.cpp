#include "mnemosyne/nn/position/position_spectrum.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linspace.h>

#include <cmath>

#include "mnemosyne/core/error.h"
#include "mnemosyne/core/registry.h"
#include "mnemosyne/nn/layer.h"
#include "mnemosyne/nn/position/mixture_spectrum.h"
#include "mnemosyne/nn/position/neural_spectrum.h"
#include "mnemosyne/nn/position/released_spectrum.h"
#include "mnemosyne/nn/position/window_spectrum.h"

namespace mnemosyne::nn {
namespace {

using Maker = std::shared_ptr<PositionSpectrum>(const FourierPositionOptions&);

template <typename Spectrum>
std::shared_ptr<PositionSpectrum> make(const FourierPositionOptions& options) {
  return std::make_shared<Spectrum>(options);
}

const Registry<Maker>& kinds() {
  static const Registry<Maker> registry("kind", {{"gaussian_mixture", make<MixtureSpectrum>},
                                                 {"shift_invariant", make<MixtureSpectrum>},
                                                 {"local", make<WindowSpectrum>},
                                                 {"neural", make<NeuralSpectrum>}});
  return registry;
}

void expect_positive(const char* name, int64_t value) {
  if (value < 1) {
    throw InputError("[" + std::string(name) + "] expected a positive number, got " +
                     std::to_string(value));
  }
}

void check(const FourierPositionOptions& o) {
  expect_positive("num_heads", o.num_heads);
  expect_positive("position_dim", o.position_dim);
  expect_positive("num_frequencies", o.num_frequencies);
  expect_positive("num_components", o.num_components);
  if (!(o.min_width > 0.0) || !(o.max_width >= o.min_width)) {
    throw InputError("[min_width, max_width] expected 0 < min_width <= max_width, got " +
                     std::to_string(o.min_width) + " and " + std::to_string(o.max_width));
  }
  if (!(o.extent.value_or(1.0) > 0.0) || !(o.position_scale > 0.0) || !(o.max_bound >= 0.0)) {
    throw InputError(
        "[extent, position_scale, max_bound] expected positive numbers (max_bound may "
        "be 0), got " +
        (o.extent ? std::to_string(*o.extent) : "none") + ", " + std::to_string(o.position_scale) +
        " and " + std::to_string(o.max_bound));
  }
  const bool mixture = o.kind == "gaussian_mixture";
  if (o.phase && ((!mixture && o.kind != "neural") || o.rotation_invariant || o.released_code)) {
    throw InputError(
        "[phase] expected a gaussian_mixture or neural spectrum without rotation_invariant and "
        "released_code: every other f is even, got " +
        o.kind);
  }
  if (o.rotation_invariant && (!mixture || o.position_dim != 3 || o.released_code)) {
    throw InputError(
        "[rotation_invariant] expected a gaussian_mixture with position_dim 3 without "
        "released_code, got " +
        o.kind + " with " + std::to_string(o.position_dim));
  }
  if (o.released_code && (!mixture || o.coupling != "concatenate")) {
    throw InputError("[released_code] expected a concatenated gaussian_mixture, got " + o.coupling +
                     " and " + o.kind);
  }
}

}  // namespace

void bind_choice(Fields& visit, FourierPositionOptions& o) {
  visit("coupling", o.coupling);
  visit("factor", o.factor);
  visit("num_frequencies", o.num_frequencies);
  visit("kernel", o.kernel);
  visit("matern_nu", o.matern_nu);
  visit("window", o.window);
  visit("smoothing", o.smoothing);
  visit("initial_amplitude", o.initial_amplitude);
  visit("max_bound", o.max_bound);
  visit("draws", o.draws);
  visit("phase", o.phase);
  visit("released_code", o.released_code);
  visit("hidden", o.hidden);
}

void bind(Fields& visit, FourierPositionOptions& o) {
  visit("num_heads", o.num_heads);
  visit("position_dim", o.position_dim);
  visit("kind", o.kind);
  visit("num_components", o.num_components);
  visit("min_width", o.min_width);
  visit("max_width", o.max_width);
  visit("extent", o.extent);
  visit("position_scale", o.position_scale);
  visit("rotation_invariant", o.rotation_invariant);
  visit("seed", o.seed);
  bind_choice(visit, o);
}

std::shared_ptr<PositionSpectrum> make_position_spectrum(const FourierPositionOptions& options) {
  const auto& maker = kinds().get(options.kind);
  check(options);
  const FourierPositionOptions seeded = with_seed(options);
  if (options.released_code) return std::make_shared<ReleasedSpectrum>(seeded);
  return maker(seeded);
}

at::Tensor log_spaced_widths(const FourierPositionOptions& options) {
  const bool several = options.num_components > 1;
  return at::linspace(std::log(several ? options.min_width : options.max_width),
                      std::log(options.max_width), options.num_components,
                      at::TensorOptions(at::kDouble))
      .exp();
}

at::Tensor at_least_float(const at::Tensor& parameter) {
  const bool narrow =
      parameter.scalar_type() == at::kHalf || parameter.scalar_type() == at::kBFloat16;
  return narrow ? parameter.to(at::kFloat) : parameter;
}

}  // namespace mnemosyne::nn
