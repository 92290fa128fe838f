#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mnemosyne/ops/tensor_step/tensor_step.h"

namespace mnemosyne::optim {

/// What the learned part of the default Mnemosyne looks at in one step: bounded features [T, F] of
/// T tensors, between about -3 and 3. Each is declared once, in step_features.cpp, with its name.

/// What is known of a tensor without looking into it.
struct TensorFacts {
  int64_t t = 1;  ///< This step, from 1.
  std::optional<int64_t> num_steps = {};
  int64_t size = 0;  ///< Coordinates.
  int64_t rows = 0;  ///< Of the matrix that it is treated as, 0 for a vector.
  /// 1 - b1^(t-1), the weights in m before the step: what it is divided by to have no bias.
  double momentum_weight = 1.0;
};

/// Running averages of a tensor, float32 [num_signals] in its state:
///
///     fast_cosine    cosine of g and m, averaged over about 5 steps
///     slow_cosine    over about 50 steps
///     fast_log_norm  log |g|, over about 5 steps
///     slow_log_norm  over about 50 steps
///     peak_log_norm  largest slow_log_norm so far
///
/// and, where the sums have those of u, the update of the step before, with n coordinates, the
/// momentum m^ before the step without its bias, and k = |u| sqrt(|g|^2 + |m^|^2),
///
///     fast_agreement, slow_agreement  <g, u> / k, over about 5 and 50 steps
///     fast_expected, slow_expected    <m^, u> / k, which that is compared with, likewise
///     radial                          tanh(sqrt(n) |<g, p>| / (|g| |p|)), over about 50 steps
///
/// The radial part tells what stands behind a normalisation, where it is zero, from all else, where
/// it is about .6 by chance.
inline constexpr int64_t kNumSignals = 5, kNumAlignmentSignals = 5;

/// How many a tensor has, with or without those of alignment.
constexpr int64_t num_signals(bool aligned) {
  return aligned ? kNumSignals + kNumAlignmentSignals : kNumSignals;
}

/// Advances the signals of T tensors by one step, and gives the features after it, float64 [T, F]
/// on the device of the sums. Signals are written to where `in_place`, else replaced; those of a
/// tensor's first step, or that are not finite, start anew.
///
/// The T tensors are those of `num_lists` lists of the same length, one after the other: averages
/// are those of a list. What lies on the CPU is computed number by number, which for a few hundred
/// of them is much faster than operations on tensors; the formulas are the same text.
at::Tensor advance_features(std::vector<at::Tensor>& signals, bool in_place,
                            const ops::StepSums& sums, const std::vector<TensorFacts>& facts,
                            int64_t num_lists = 1);

/// F names, in the order of the columns, with or without those of alignment.
const std::vector<std::string>& step_feature_names(bool aligned = false);

}  // namespace mnemosyne::optim
