#include "mnemosyne/optim/coordinate_weights.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/nn/feature_map.h"

namespace mnemosyne::optim {
namespace {

constexpr double kTimeScales[] = {1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5};
constexpr double kInitialRadius = 0.7;
constexpr double kInitialRate = 0.03;

double logit(double x) { return std::log(x / (1.0 - x)); }

/// Discounts whose time scales 1 / (1 - decay) are spread evenly in the logarithm from 10 to 1000.
at::Tensor decay_logits(int64_t heads) {
  at::Tensor logits = at::empty({heads}, at::TensorOptions(at::kFloat));
  for (int64_t h = 0; h < heads; ++h) {
    const double position =
        heads == 1 ? 0.0 : static_cast<double>(h) / static_cast<double>(heads - 1);
    logits.mutable_data_ptr<float>()[h] =
        static_cast<float>(logit(1.0 - std::pow(10.0, -1.0 - 2.0 * position)));
  }
  return logits;
}

}  // namespace

int64_t coordinate_tensor_features() { return static_cast<int64_t>(std::size(kTimeScales)) + 4; }

at::Tensor coordinate_tensor_features(const at::Tensor& param, int64_t t,
                                      const StepOptions& options) {
  at::Tensor features = at::empty({coordinate_tensor_features()}, at::TensorOptions(at::kDouble));
  double* out = features.mutable_data_ptr<double>();
  const double time = static_cast<double>(t);
  for (const double scale : kTimeScales) *out++ = std::tanh(time / scale - 1.0);
  *out++ = std::log10(static_cast<double>(std::max<int64_t>(param.numel(), 1))) / 6.0;
  *out++ = param.dim() >= 2 ? 1.0 : 0.0;
  *out++ = options.num_steps ? 1.0 : 0.0;
  *out++ = options.num_steps
               ? std::clamp(1.0 - (time - 1.0) / static_cast<double>(*options.num_steps), 0.0, 1.0)
               : 0.0;
  return features;
}

NamedTensors initial_coordinate_weights(const CoordinateOptions& options) {
  const at::NoGradGuard no_grad;
  const at::TensorOptions real(at::kFloat);
  const at::Generator generator = tensor_generator(static_cast<uint64_t>(options.seed));
  const auto normal = [&](at::IntArrayRef shape, double scale) {
    return at::randn(shape, generator, real) * scale;
  };
  const ops::FeatureMapTraits& map = ops::traits_of(nn::feature_map_kind(options.feature_map));
  const int64_t heads = options.num_heads, hidden = options.hidden;
  NamedTensors weights;
  for (int64_t l = 0; l < options.num_layers; ++l) {
    const std::string prefix = "layers." + std::to_string(l) + ".";
    const int64_t inputs = ops::memory_layer_inputs(l, heads);
    const double scale = 1.0 / std::sqrt(static_cast<double>(inputs));
    weights.emplace_back(prefix + "decay_logit", decay_logits(heads));
    if (map.per_vector > 0) {
      weights.emplace_back(prefix + "key", normal({heads, options.key_dim, inputs}, scale));
      weights.emplace_back(prefix + "query", normal({heads, options.key_dim, inputs}, scale));
      weights.emplace_back(prefix + "temperature", at::full({heads}, logit(kInitialRadius), real));
    }
    if (l > 0) weights.emplace_back(prefix + "value", normal({ops::kMemoryValues, inputs}, scale));
  }
  const int64_t inputs = ops::memory_decoder_inputs(options.num_layers, heads);
  const double scale = std::sqrt(2.0 / static_cast<double>(inputs));
  weights.emplace_back("decoder.hidden_weight", normal({hidden, inputs}, scale));
  weights.emplace_back("decoder.hidden_bias", at::zeros({hidden}, real));
  weights.emplace_back("decoder.tensor_weight",
                       normal({hidden, coordinate_tensor_features()}, 0.1));
  weights.emplace_back("decoder.output_weight", at::zeros({2, hidden}, real));
  weights.emplace_back("decoder.output_bias", at::zeros({2}, real));
  weights.emplace_back("step.log_rate", at::full({}, std::log(kInitialRate), real));
  weights.emplace_back("step.tensor_weight", at::zeros({coordinate_tensor_features()}, real));
  return weights;
}

at::Tensor coordinate_omega(const CoordinateOptions& options) {
  const int64_t count =
      nn::num_omegas(nn::feature_map_kind(options.feature_map), options.num_features);
  if (count == 0) return {};
  if (options.omega.empty()) {
    return nn::draw_omega(count, options.key_dim, static_cast<uint64_t>(options.seed));
  }
  at::Tensor omega = at::empty({count, options.key_dim}, at::TensorOptions(at::kDouble));
  const char* text = options.omega.c_str();
  double* out = omega.mutable_data_ptr<double>();
  for (int64_t i = 0; i < omega.numel(); ++i) {
    char* end = nullptr;
    out[i] = std::strtod(text, &end);
    if (end == text || !std::isfinite(out[i])) {
      throw InputError("[mnemosyne-coordinate] expected `omega` to hold " +
                       std::to_string(omega.numel()) + " numbers, got " + std::to_string(i));
    }
    text = end;
  }
  if (*text != '\0') {
    throw InputError("[mnemosyne-coordinate] expected `omega` to hold " +
                     std::to_string(omega.numel()) + " numbers, got more");
  }
  return omega;
}

std::string omega_text(const at::Tensor& omega) {
  std::string text;
  if (!omega.defined()) return text;
  char number[32];
  for (int64_t i = 0; i < omega.numel(); ++i) {
    std::snprintf(number, sizeof number, "%s%.17g", i == 0 ? "" : " ",
                  omega.const_data_ptr<double>()[i]);
    text += number;
  }
  return text;
}

void validate(const CoordinateOptions& options) {
  const auto check = [](bool holds, const std::string& expectation, auto value) {
    check_option(holds, "mnemosyne-coordinate", expectation, static_cast<double>(value));
  };
  const auto small = [](int64_t value, int64_t most) { return value >= 1 && value <= most; };
  check(small(options.num_layers, 8), "`num_layers` from 1 to 8", options.num_layers);
  check(small(options.num_heads, 64), "`num_heads` from 1 to 64", options.num_heads);
  check(small(options.num_features, 1024), "`num_features` from 1 to 1024", options.num_features);
  check(small(options.key_dim, 256), "`key_dim` from 1 to 256", options.key_dim);
  check(small(options.hidden, 1024), "`hidden` from 1 to 1024", options.hidden);
  for (const int64_t head : {options.momentum_head, options.variance_head}) {
    check(head >= 0 && head < options.num_heads,
          "`momentum_head` and `variance_head` below `num_heads`", head);
  }
  for (const double bound :
       {options.direction_bound, options.magnitude_bound, options.step_bound}) {
    check(bound >= 0 && bound <= 20, "bounds from 0 to 20", bound);
  }
  check(options.eps > 0 && options.eps <= 1, "`eps` above 0 and at most 1", options.eps);
  check(options.rms_floor > 0 && std::isfinite(options.rms_floor), "a positive `rms_floor`",
        options.rms_floor);
  check(options.seed >= 0, "`seed` at least 0", options.seed);
  nn::num_omegas(nn::feature_map_kind(options.feature_map), options.num_features);
}

}  // namespace mnemosyne::optim
