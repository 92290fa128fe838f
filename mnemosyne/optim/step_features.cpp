#include "mnemosyne/optim/step_features.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/log.h>
#include <ATen/ops/log10.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>

namespace mnemosyne::optim {
namespace {

// The formulas below are written once, for numbers (Signal float, Sum double, of one tensor) and
// for tensors (at::Tensor [T], of all of them). What the two call by other names:

float as_signal(double x) { return static_cast<float>(x); }
at::Tensor as_signal(const at::Tensor& x) { return x.to(at::kFloat); }

bool is_finite(float x) { return std::isfinite(x); }
// Two operations, where at::isfinite is four.
at::Tensor is_finite(const at::Tensor& x) {
  return x.abs() < std::numeric_limits<double>::infinity();
}

double finite_or_zero(double x) { return std::isfinite(x) ? x : 0.0; }
at::Tensor finite_or_zero(const at::Tensor& x) { return at::nan_to_num(x, 0.0, 0.0, 0.0); }

float pick(bool which, float a, float b) { return which ? a : b; }
at::Tensor pick(const at::Tensor& which, const at::Tensor& a, const at::Tensor& b) {
  return at::where(which, a, b);
}

float average(float keep, float old, float value) { return keep * old + (1.0f - keep) * value; }
at::Tensor average(float keep, const at::Tensor& old, const at::Tensor& value) {
  return old.lerp(value, 1.0f - keep);
}

float larger(float a, float b) { return std::max(a, b); }
at::Tensor larger(const at::Tensor& a, const at::Tensor& b) { return at::maximum(a, b); }

template <typename Signal>
struct Signals {
  Signal fast_cosine, slow_cosine, fast_log_norm, slow_log_norm, peak_log_norm;
};

template <typename Signal>
auto tie(Signals<Signal>& s) {
  return std::tie(s.fast_cosine, s.slow_cosine, s.fast_log_norm, s.slow_log_norm, s.peak_log_norm);
}

template <typename Sum>
struct Sums {
  Sum grad_dot_momentum, grad_squared, old_squared, new_squared, param_squared, second_moment,
      zeros;
};

/// What a feature may look at beside the facts.
template <typename Signal, typename Sum>
struct Seen {
  Signals<Signal> signals;
  Sums<Sum> sums;
  Sum size;  // coordinates, at least 1
};

/// The signals after a step; `old` are zero where they are not `known`.
template <typename Signal, typename Sum, typename Bool>
Signals<Signal> advanced(const Signals<Signal>& old, const Sums<Sum>& sums, const Bool& known) {
  using at::log, at::sqrt, std::log, std::sqrt;
  constexpr float kFast = 0.8f, kSlow = 0.98f;
  const Sum norms = sqrt(sums.grad_squared) * sqrt(sums.old_squared);
  const Sum ratio = sums.grad_dot_momentum / norms;
  const Signal cosine = as_signal(finite_or_zero(ratio));  // zero beside a zero
  const Signal log_norm = as_signal(0.5 * log(sums.grad_squared));
  const Bool has_norm = is_finite(log_norm);  // as that of a gradient that vanishes is not
  const auto norm_average = [&](float keep, const Signal& own) {
    return pick(has_norm, pick(known, average(keep, own, log_norm), log_norm), own);
  };
  Signals<Signal> next;
  next.fast_cosine = average(kFast, old.fast_cosine, cosine);
  next.slow_cosine = average(kSlow, old.slow_cosine, cosine);
  next.fast_log_norm = norm_average(kFast, old.fast_log_norm);
  next.slow_log_norm = norm_average(kSlow, old.slow_log_norm);
  const Signal peak =
      pick(known, larger(old.peak_log_norm, next.slow_log_norm), next.slow_log_norm);
  next.peak_log_norm = pick(has_norm, peak, old.peak_log_norm);
  return next;
}

template <typename Sum>
Sum log_ratio(const Sum& numerator, const Sum& denominator) {
  using at::log, std::log;
  constexpr double kTiny = 1e-30;
  return 0.5 * log((numerator + kTiny) / (denominator + kTiny));
}

double progress(const TensorFacts& facts) {
  if (!facts.num_steps) return 0.5;
  return std::min(1.0, static_cast<double>(facts.t - 1) / static_cast<double>(*facts.num_steps));
}

double log_aspect(const TensorFacts& facts) {
  const double rows = static_cast<double>(facts.rows), size = static_cast<double>(facts.size);
  return rows > 0 ? std::tanh(0.5 * std::log2(rows * rows / size)) : 0.0;
}

/// A feature: of a tensor's facts, or of what was seen. `averaged` ones come once more, as the
/// average over all tensors, weighted by their sizes, with "mean_" before the name.
template <typename Of>
struct Feature {
  static constexpr bool kOfFacts = std::is_invocable_v<Of, const TensorFacts&>;

  const char* name;
  Of of;
  bool averaged = false;
};
template <typename Of>
Feature(const char*, Of) -> Feature<Of>;
template <typename Of>
Feature(const char*, Of, bool) -> Feature<Of>;

using Facts = const TensorFacts&;

template <typename S, typename D>
using See = const Seen<S, D>&;

constexpr auto kFeatures = std::make_tuple(
    Feature{"one", [](Facts) { return 1.0; }},
    Feature{"log_time", [](Facts f) { return std::log10(static_cast<double>(f.t)) / 2.0 - 1.0; }},
    Feature{"num_steps_known", [](Facts f) { return f.num_steps ? 1.0 : 0.0; }},
    Feature{"progress", [](Facts f) { return 2.0 * progress(f) - 1.0; }},
    Feature{"is_matrix", [](Facts f) { return f.rows > 0 ? 1.0 : 0.0; }},
    Feature{
        "log_size",
        [](Facts f) { return std::log10(std::max(static_cast<double>(f.size), 1.0)) / 2.0 - 1.5; }},
    Feature{"fast_cosine",
            []<typename S, typename D>(See<S, D> c) { return c.signals.fast_cosine; }, true},
    Feature{"slow_cosine",
            []<typename S, typename D>(See<S, D> c) { return c.signals.slow_cosine; }, true},
    Feature{"norm_trend",
            []<typename S, typename D>(See<S, D> c) {
              using at::tanh, std::tanh;
              return tanh(c.signals.fast_log_norm - c.signals.slow_log_norm);
            },
            true},
    Feature{"norm_decline",
            []<typename S, typename D>(See<S, D> c) {
              using at::tanh, std::tanh;
              return tanh((c.signals.slow_log_norm - c.signals.peak_log_norm) / 3.0);
            },
            true},
    Feature{"momentum_norm",
            []<typename S, typename D>(See<S, D> c) {
              using at::tanh, std::tanh;
              return tanh(log_ratio(c.sums.new_squared, c.sums.grad_squared));
            }},
    Feature{"param_rms",
            []<typename S, typename D>(See<S, D> c) {
              using at::log10, at::sqrt, at::tanh, std::log10, std::sqrt, std::tanh;
              return tanh(log10(sqrt(c.sums.param_squared / c.size) + 1e-8) + 1.5);
            }},
    Feature{"aspect", [](Facts f) { return log_aspect(f); }},
    Feature{"zero_fraction",
            []<typename S, typename D>(See<S, D> c) { return c.sums.zeros / c.size; }},
    Feature{"surge", []<typename S, typename D>(See<S, D> c) {
              using at::tanh, std::tanh;
              return tanh(log_ratio(c.sums.grad_squared, c.sums.second_moment));
            }});

template <typename Visit>
void for_each_feature(const Visit& visit) {
  std::apply([&](const auto&... feature) { (visit(feature), ...); }, kFeatures);
}

int64_t num_features() { return static_cast<int64_t>(step_feature_names().size()); }

/// Adds the averages of every list to rows [T, F] of which they are not yet set.
void add_averages(double* rows, const std::vector<TensorFacts>& facts, int64_t num_lists) {
  const int64_t width = num_features();
  const size_t length = facts.size() / static_cast<size_t>(num_lists);
  int64_t column = 0, target = static_cast<int64_t>(std::tuple_size_v<decltype(kFeatures)>);
  for_each_feature([&](const auto& feature) {
    if (feature.averaged) {
      for (size_t begin = 0; begin < facts.size(); begin += length) {
        double sum = 0.0, total = 0.0;
        for (size_t i = begin; i < begin + length; ++i) {
          const auto size = static_cast<double>(facts[i].size);
          sum += size * rows[static_cast<int64_t>(i) * width + column];
          total += size;
        }
        for (size_t i = begin; i < begin + length; ++i) {
          rows[static_cast<int64_t>(i) * width + target] = total > 0.0 ? sum / total : 0.0;
        }
      }
      ++target;
    }
    ++column;
  });
}

at::Tensor features_by_number(std::vector<at::Tensor>& signals, bool in_place,
                              const ops::StepSums& sums, const std::vector<TensorFacts>& facts,
                              int64_t num_lists) {
  const auto count = static_cast<int64_t>(facts.size());
  const at::Tensor result = at::empty({count, num_features()}, at::kDouble);
  const at::Tensor fresh = in_place ? at::Tensor() : at::empty({count, kNumSignals}, at::kFloat);
  double* row = result.mutable_data_ptr<double>();
  const auto at = [](const at::Tensor& column, size_t i) {
    return column.const_data_ptr<double>()[i];
  };
  for (size_t i = 0; i < facts.size(); ++i) {
    Seen<float, double> seen{};
    seen.sums = {at(sums.grad_dot_momentum, i),
                 at(sums.grad_squared, i),
                 at(sums.old_squared, i),
                 at(sums.new_squared, i),
                 at(sums.param_squared, i),
                 at(sums.second_moment, i),
                 at(sums.zeros, i)};
    seen.size = static_cast<double>(std::max<int64_t>(facts[i].size, 1));
    const float* before = signals[i].const_data_ptr<float>();
    bool known = facts[i].t > 1;
    for (int64_t k = 0; k < kNumSignals; ++k) known = known && std::isfinite(before[k]);
    Signals<float> old{};
    if (known) old = {before[0], before[1], before[2], before[3], before[4]};
    seen.signals = advanced(old, seen.sums, known);
    if (!in_place) signals[i] = fresh.select(0, static_cast<int64_t>(i));
    float* after = signals[i].mutable_data_ptr<float>();
    std::apply([&](const auto&... signal) { ((*after++ = signal), ...); }, tie(seen.signals));
    double* next = row + static_cast<int64_t>(i) * num_features();
    for_each_feature([&](const auto& feature) {
      if constexpr (std::remove_reference_t<decltype(feature)>::kOfFacts) {
        *next++ = feature.of(facts[i]);
      } else {
        *next++ = feature.of(seen);
      }
    });
  }
  add_averages(row, facts, num_lists);
  return result;
}

/// What only the host knows of T tensors, as tensors [T] on a device, by one transfer.
struct HostColumns {
  at::Tensor later, size, share;  // not the first step; coordinates, at least 1; of the list's
  std::vector<at::Tensor> facts;  // features of the facts, in the order of their declaration

  HostColumns(const std::vector<TensorFacts>& list, int64_t num_lists, const at::Tensor& like) {
    const size_t length = list.size() / static_cast<size_t>(num_lists);
    std::vector<double> values;
    const auto add = [&](const auto& of) {
      for (size_t i = 0; i < list.size(); ++i) values.push_back(of(i));
    };
    std::vector<double> totals(static_cast<size_t>(num_lists));
    for (size_t i = 0; i < list.size(); ++i) {
      totals[i / length] += static_cast<double>(list[i].size);
    }
    add([&](size_t i) { return list[i].t > 1 ? 1.0 : 0.0; });
    add([&](size_t i) { return static_cast<double>(std::max<int64_t>(list[i].size, 1)); });
    add([&](size_t i) {
      return static_cast<double>(list[i].size) / std::max(totals[i / length], 1.0);
    });
    for_each_feature([&](const auto& feature) {
      if constexpr (std::remove_reference_t<decltype(feature)>::kOfFacts) {
        add([&](size_t i) { return feature.of(list[i]); });
      }
    });
    const auto count = static_cast<int64_t>(list.size());
    const auto height = static_cast<int64_t>(values.size()) / count;
    facts = at::from_blob(values.data(), {height, count}, at::kDouble)
                .to(like.device(), like.scalar_type(), /*non_blocking=*/true, /*copy=*/true)
                .unbind();
    later = facts[0];
    size = facts[1];
    share = facts[2];
    facts.erase(facts.begin(), facts.begin() + 3);
  }
};

/// Averages over the tensors of each list, [C, T] -> [C, T] with equal numbers within a list.
at::Tensor list_averages(const at::Tensor& columns, const at::Tensor& share, int64_t num_lists) {
  if (num_lists == 1) return (columns * share).sum(1, /*keepdim=*/true).expand_as(columns);
  const at::Tensor lists = (columns * share).view({columns.size(0), num_lists, -1});
  return lists.sum(2, /*keepdim=*/true).expand_as(lists).reshape(columns.sizes());
}

at::Tensor features_by_tensor(std::vector<at::Tensor>& signals, bool in_place,
                              const ops::StepSums& sums, const std::vector<TensorFacts>& facts,
                              int64_t num_lists) {
  const at::Tensor& like = sums.grad_squared;
  const HostColumns host(facts, num_lists, like);
  std::vector<at::Tensor> here;
  for (const at::Tensor& own : signals) {
    here.push_back(own.device() == like.device() ? own : own.to(like.device()));
  }
  const at::Tensor all = at::stack(here, 1);  // [kNumSignals, T]
  const at::Tensor known = is_finite(all).all(0).logical_and(host.later);
  const std::vector<at::Tensor> old = all.masked_fill(known.logical_not(), 0.0).unbind();
  Seen<at::Tensor, at::Tensor> seen;
  seen.sums = {sums.grad_dot_momentum, sums.grad_squared,  sums.old_squared, sums.new_squared,
               sums.param_squared,     sums.second_moment, sums.zeros};
  seen.size = host.size;
  seen.signals = advanced<at::Tensor, at::Tensor, at::Tensor>(
      {old.at(0), old.at(1), old.at(2), old.at(3), old.at(4)}, seen.sums, known);
  const std::vector<at::Tensor> after = std::apply(
      [](const auto&... signal) { return at::stack({signal...}, 1).unbind(); }, tie(seen.signals));
  if (in_place) at::_foreach_copy_(signals, after);
  for (size_t i = 0; !in_place && i < facts.size(); ++i) {
    signals[i] = after[i].to(signals[i].device());
  }

  auto next = host.facts.begin();
  std::vector<at::Tensor> columns, averaged;
  for_each_feature([&](const auto& feature) {
    if constexpr (std::remove_reference_t<decltype(feature)>::kOfFacts) {
      columns.push_back(*next++);
    } else {
      columns.push_back(feature.of(seen));
      if (feature.averaged) averaged.push_back(columns.back());
    }
  });
  const at::Tensor averages = list_averages(at::stack(averaged), host.share, num_lists);
  return at::cat({at::stack(columns), averages}).t();
}

}  // namespace

at::Tensor advance_features(std::vector<at::Tensor>& signals, bool in_place,
                            const ops::StepSums& sums, const std::vector<TensorFacts>& facts,
                            int64_t num_lists) {
  const auto is_number = [](const at::Tensor& x) { return x.is_cpu() && !x.requires_grad(); };
  const bool numbers = is_number(sums.grad_squared) &&
                       sums.grad_squared.scalar_type() == at::kDouble &&
                       std::all_of(signals.begin(), signals.end(), is_number);
  return (numbers ? features_by_number : features_by_tensor)(signals, in_place, sums, facts,
                                                             num_lists);
}

const std::vector<std::string>& step_feature_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> own, averages;
    for_each_feature([&](const auto& feature) {
      own.push_back(feature.name);
      if (feature.averaged) averages.push_back("mean_" + own.back());
    });
    own.insert(own.end(), averages.begin(), averages.end());
    return own;
  }();
  return names;
}

}  // namespace mnemosyne::optim
