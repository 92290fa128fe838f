#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mnemosyne/ops/tensor_step/tensor_step.h"

namespace mnemosyne::optim {

/// The per-tensor controller of the default Mnemosyne: what it sees and what it decides
/// (mnemosyne_rule.h has the formulas).

inline constexpr int kNumSignals = 5;
inline constexpr int kNumFeatures = 18;
inline constexpr int kNumOutputs = 3 + ops::kNumReadouts;

/// Running averages of one tensor, as they lie in its state.
struct Signals {
  float fast_cosine;    ///< cosine of g and m, averaged over about 5 steps
  float slow_cosine;    ///< over about 50 steps
  float fast_log_norm;  ///< log |g|, over about 5 steps
  float slow_log_norm;  ///< over about 50 steps
  float peak_log_norm;  ///< largest slow_log_norm so far
};
static_assert(sizeof(Signals) == kNumSignals * sizeof(float));

/// What the controller knows of a tensor beside its signals.
struct TensorFacts {
  int64_t t = 1;  ///< this step, from 1
  std::optional<int64_t> num_steps = {};
  int64_t size = 0;  ///< coordinates
  int64_t rows = 0;  ///< 0 for a vector
};

using Features = std::array<double, kNumFeatures>;
using Outputs = std::array<double, kNumOutputs>;

/// Advances the signals by one step.
void update_signals(Signals& signals, const ops::TensorSums& sums, int64_t t);

/// The features of all tensors of a step, [tensors][F]; each between about -3 and 3.
std::vector<Features> controller_features(const std::vector<TensorFacts>& facts,
                                          const std::vector<const Signals*>& signals,
                                          const std::vector<ops::TensorSums>& sums);

/// W x for W [K, F] in rows.
Outputs controller_outputs(const float* weights, const Features& features);

/// How far the outputs can move a tensor: the logarithm of its step and its mixture.
struct ControllerBounds {
  double step = 0.0;
  double mixture = 0.5;
};

/// The base coefficients as the outputs change them; `plain` where these are not finite.
void apply_outputs(const Outputs& outputs, const ControllerBounds& bounds,
                   ops::TensorCoefficients& coefficients);

const std::vector<std::string>& controller_feature_names();
const std::vector<std::string>& controller_output_names();

inline constexpr double kLogBlendBound = 1.5;  ///< The log blend moves by at most this.
inline constexpr double kReadoutScale = 2.0;

}  // namespace mnemosyne::optim
