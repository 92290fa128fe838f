#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/log.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <limits>

#include "mnemosyne/ops/tensor_step/tensor_step.h"
#include "mnemosyne/optim/step_features.h"

/// The running signals of step_features.h. Formulas are written once, for numbers (Signal float,
/// Sum double, of one tensor) and for tensors (at::Tensor [T], of all of them).
namespace mnemosyne::optim::signals {

// What the two call by other names.

inline float as_signal(double x) { return static_cast<float>(x); }
inline at::Tensor as_signal(const at::Tensor& x) { return x.to(at::kFloat); }

inline bool is_finite(float x) { return std::isfinite(x); }
// Two operations, where at::isfinite is four.
inline at::Tensor is_finite(const at::Tensor& x) {
  return x.abs() < std::numeric_limits<double>::infinity();
}

inline double finite_or_zero(double x) { return std::isfinite(x) ? x : 0.0; }
inline at::Tensor finite_or_zero(const at::Tensor& x) { return at::nan_to_num(x, 0.0, 0.0, 0.0); }

inline float pick(bool which, float a, float b) { return which ? a : b; }
inline at::Tensor pick(const at::Tensor& which, const at::Tensor& a, const at::Tensor& b) {
  return at::where(which, a, b);
}

inline float average(float keep, float old, float value) {
  return keep * old + (1.0f - keep) * value;
}
inline at::Tensor average(float keep, const at::Tensor& old, const at::Tensor& value) {
  return old.lerp(value, 1.0f - keep);
}

inline float larger(float a, float b) { return std::max(a, b); }
inline at::Tensor larger(const at::Tensor& a, const at::Tensor& b) { return at::maximum(a, b); }

constexpr float kFast = 0.8f, kSlow = 0.98f;  // averages over about 5 and 50 steps

/// Those after `peak_log_norm` are of rules with alignment.
template <typename Signal>
struct Signals {
  Signal fast_cosine, slow_cosine, fast_log_norm, slow_log_norm, peak_log_norm;
  Signal fast_agreement, slow_agreement, fast_expected, slow_expected, radial;

  /// In the order of the state.
  std::array<Signal*, kNumSignals + kNumAlignmentSignals> members() {
    return {&fast_cosine,    &slow_cosine,    &fast_log_norm, &slow_log_norm, &peak_log_norm,
            &fast_agreement, &slow_agreement, &fast_expected, &slow_expected, &radial};
  }
};

/// ops::StepSums of tensors.
template <typename Sum>
struct Sums {
  Sum grad_dot_momentum, grad_squared, old_squared, new_squared, param_squared, second_moment,
      zeros, grad_dot_update, momentum_dot_update, update_squared, grad_dot_param;

  /// In the order of ops::kStepSums.
  std::array<Sum*, std::size(ops::kStepSums)> members() {
    return {&grad_dot_momentum,   &grad_squared,   &old_squared,   &new_squared,
            &param_squared,       &second_moment,  &zeros,         &grad_dot_update,
            &momentum_dot_update, &update_squared, &grad_dot_param};
  }
};

/// What a feature may look at beside the facts.
template <typename Signal, typename Sum>
struct Seen {
  Signals<Signal> signals;
  Sums<Sum> sums;
  Sum size;             // coordinates, at least 1
  Sum momentum_weight;  // TensorFacts::momentum_weight
};

/// The average of a value that is sometimes unknown, which keeps it; it starts with the first one.
template <typename Signal, typename Bool>
Signal known_average(float keep, const Signal& old, const Signal& value, const Bool& has_value,
                     const Bool& known) {
  return pick(has_value, pick(known, average(keep, old, value), value), old);
}

/// The signals after a step but for those of alignment; `old` are zero where they are not `known`.
template <typename Signal, typename Sum, typename Bool>
Signals<Signal> advanced(const Signals<Signal>& old, const Sums<Sum>& sums, const Bool& known) {
  using at::log, at::sqrt, std::log, std::sqrt;
  const Sum norms = sqrt(sums.grad_squared) * sqrt(sums.old_squared);
  const Sum ratio = sums.grad_dot_momentum / norms;
  const Signal cosine = as_signal(finite_or_zero(ratio));  // zero beside a zero
  const Signal log_norm = as_signal(0.5 * log(sums.grad_squared));
  const Bool has_norm = is_finite(log_norm);  // as that of a gradient that vanishes is not
  Signals<Signal> next;
  next.fast_cosine = average(kFast, old.fast_cosine, cosine);
  next.slow_cosine = average(kSlow, old.slow_cosine, cosine);
  next.fast_log_norm = known_average(kFast, old.fast_log_norm, log_norm, has_norm, known);
  next.slow_log_norm = known_average(kSlow, old.slow_log_norm, log_norm, has_norm, known);
  const Signal peak =
      pick(known, larger(old.peak_log_norm, next.slow_log_norm), next.slow_log_norm);
  next.peak_log_norm = pick(has_norm, peak, old.peak_log_norm);
  return next;
}

/// The signals of alignment after a step, into `next`. With m^ the momentum before the step without
/// its bias, <g, u> and <m^, u> come in the same units |u| sqrt(|g|^2 + |m^|^2), so that either is
/// between -1 and 1 and the averages can be divided: the quotient of one step is mostly noise.
template <typename Signal, typename Sum, typename Bool>
void advance_alignment(const Signals<Signal>& old, const Seen<Signal, Sum>& seen, const Bool& known,
                       Signals<Signal>& next) {
  using at::abs, at::sqrt, at::tanh, std::abs, std::sqrt, std::tanh;
  const Sums<Sum>& sums = seen.sums;
  const Sum& weight = seen.momentum_weight;
  const Sum unit =
      sqrt(sums.grad_squared + sums.old_squared / (weight * weight)) * sqrt(sums.update_squared);
  const Sum agreed = sums.grad_dot_update / unit;
  const Sum hoped = sums.momentum_dot_update / (unit * weight);
  const Signal agreement = as_signal(finite_or_zero(agreed));
  const Signal expected = as_signal(finite_or_zero(hoped));
  next.fast_agreement = average(kFast, old.fast_agreement, agreement);
  next.slow_agreement = average(kSlow, old.slow_agreement, agreement);
  next.fast_expected = average(kFast, old.fast_expected, expected);
  next.slow_expected = average(kSlow, old.slow_expected, expected);
  // In units of what directions without any relation have.
  const Sum norms = sqrt(sums.grad_squared) * sqrt(sums.param_squared);
  const Sum share = abs(sums.grad_dot_param) * sqrt(seen.size) / norms;
  const Signal radial = as_signal(tanh(share));
  const Bool has_radial = is_finite(radial);
  next.radial = known_average(kSlow, old.radial, radial, has_radial, known);
}

}  // namespace mnemosyne::optim::signals
