#include "mnemosyne/optim/controller.h"

#include <algorithm>
#include <cmath>

namespace mnemosyne::optim {
namespace {

constexpr float kFast = 0.8f;
constexpr float kSlow = 0.98f;
constexpr double kTiny = 1e-30;

float average(float old, float value, float keep) { return keep * old + (1.0f - keep) * value; }

double log_ratio(double numerator, double denominator) {
  return 0.5 * std::log((numerator + kTiny) / (denominator + kTiny));
}

// The features that need only this tensor.
Features own_features(const TensorFacts& facts, const Signals& signals,
                      const ops::TensorSums& sums) {
  const double size = static_cast<double>(facts.size);
  const bool known = facts.num_steps.has_value();
  const double progress =
      known
          ? std::min(1.0, static_cast<double>(facts.t - 1) / static_cast<double>(*facts.num_steps))
          : 0.5;
  const bool matrix = facts.rows > 0;
  const double rms = std::sqrt(sums.param_squared / std::max(size, 1.0));
  const double rows = static_cast<double>(facts.rows);
  return {1.0,
          std::log10(static_cast<double>(facts.t)) / 2.0 - 1.0,
          known ? 1.0 : 0.0,
          2.0 * progress - 1.0,
          matrix ? 1.0 : 0.0,
          std::log10(std::max(size, 1.0)) / 2.0 - 1.5,
          signals.fast_cosine,
          signals.slow_cosine,
          std::tanh(signals.fast_log_norm - signals.slow_log_norm),
          std::tanh((signals.slow_log_norm - signals.peak_log_norm) / 3.0),
          std::tanh(log_ratio(sums.new_squared, sums.grad_squared)),
          std::tanh(std::log10(rms + 1e-8) + 1.5),
          matrix ? std::tanh(0.5 * std::log2(rows * rows / size)) : 0.0,
          size > 0.0 ? sums.zeros / size : 0.0,
          0.0,
          0.0,
          0.0,
          0.0};
}

bool all_finite(const Signals& s) {
  return std::isfinite(s.fast_cosine + s.slow_cosine + s.fast_log_norm + s.slow_log_norm +
                       s.peak_log_norm);
}

bool all_finite(const Outputs& outputs) {
  return std::all_of(outputs.begin(), outputs.end(), [](double z) { return std::isfinite(z); });
}

// The last four features are averages of these over all tensors.
constexpr int kFirstAveraged = 6;
constexpr int kNumAveraged = 4;
constexpr int kFirstAverage = kNumFeatures - kNumAveraged;

}  // namespace

void update_signals(Signals& signals, const ops::TensorSums& sums, int64_t t) {
  const bool first = t == 1 || !all_finite(signals);
  if (first) signals = {};
  const double norms = std::sqrt(sums.grad_squared) * std::sqrt(sums.old_squared);
  const double ratio = sums.grad_dot_momentum / norms;
  const float cosine = norms > 0.0 && std::isfinite(ratio) ? static_cast<float>(ratio) : 0.0f;
  signals.fast_cosine = average(signals.fast_cosine, cosine, kFast);
  signals.slow_cosine = average(signals.slow_cosine, cosine, kSlow);
  // A gradient that vanishes has no logarithm.
  if (sums.grad_squared <= 0.0 || !std::isfinite(sums.grad_squared)) return;
  const float log_norm = static_cast<float>(0.5 * std::log(sums.grad_squared));
  signals.fast_log_norm = first ? log_norm : average(signals.fast_log_norm, log_norm, kFast);
  signals.slow_log_norm = first ? log_norm : average(signals.slow_log_norm, log_norm, kSlow);
  signals.peak_log_norm = first ? log_norm : std::max(signals.peak_log_norm, signals.slow_log_norm);
}

std::vector<Features> controller_features(const std::vector<TensorFacts>& facts,
                                          const std::vector<const Signals*>& signals,
                                          const std::vector<ops::TensorSums>& sums) {
  std::vector<Features> features;
  std::array<double, kNumAveraged> averages = {};
  double total = 0.0;
  for (size_t i = 0; i < facts.size(); ++i) {
    features.push_back(own_features(facts[i], *signals[i], sums[i]));
    const double size = static_cast<double>(facts[i].size);
    for (int k = 0; k < kNumAveraged; ++k) {
      averages[k] += size * features.back()[kFirstAveraged + k];
    }
    total += size;
  }
  for (Features& own : features) {
    for (int k = 0; k < kNumAveraged; ++k) {
      own[kFirstAverage + k] = total > 0.0 ? averages[k] / total : 0.0;
    }
  }
  return features;
}

Outputs controller_outputs(const float* weights, const Features& features) {
  Outputs outputs = {};
  for (int k = 0; k < kNumOutputs; ++k) {
    for (int f = 0; f < kNumFeatures; ++f)
      outputs[k] += weights[k * kNumFeatures + f] * features[f];
  }
  return outputs;
}

void apply_outputs(const Outputs& outputs, const ControllerBounds& bounds,
                   ops::TensorCoefficients& coefficients) {
  if (!all_finite(outputs)) {
    coefficients.plain = true;
    return;
  }
  coefficients.step *= std::exp(bounds.step * std::tanh(outputs[0]));
  coefficients.blend *= std::exp(kLogBlendBound * std::tanh(outputs[1]));
  coefficients.mixture = bounds.mixture * std::tanh(outputs[2]);
  for (int k = 0; k < ops::kNumReadouts; ++k) {
    coefficients.readouts[k] = kReadoutScale * outputs[3 + k];
  }
  coefficients.corrected = true;
}

const std::vector<std::string>& controller_feature_names() {
  static const std::vector<std::string> names = {"one",
                                                 "log_time",
                                                 "num_steps_known",
                                                 "progress",
                                                 "is_matrix",
                                                 "log_size",
                                                 "fast_cosine",
                                                 "slow_cosine",
                                                 "norm_trend",
                                                 "norm_decline",
                                                 "momentum_norm",
                                                 "param_rms",
                                                 "aspect",
                                                 "zero_fraction",
                                                 "mean_fast_cosine",
                                                 "mean_slow_cosine",
                                                 "mean_norm_trend",
                                                 "mean_norm_decline"};
  return names;
}

const std::vector<std::string>& controller_output_names() {
  static const std::vector<std::string> names = {
      "step",      "blend",          "mixture",      "agreement_momentum", "agreement_gradient",
      "adam_size", "direction_size", "second_moment"};
  return names;
}

}  // namespace mnemosyne::optim
