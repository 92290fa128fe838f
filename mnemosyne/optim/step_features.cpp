#include "mnemosyne/optim/step_features.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/log10.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <type_traits>
#include <utility>

#include "mnemosyne/optim/step_signals.h"

namespace mnemosyne::optim {
namespace {

using namespace signals;

template <typename Sum>
Sum log_ratio(const Sum& numerator, const Sum& denominator) {
  using at::log, std::log;
  constexpr double kTiny = 1e-30;
  return 0.5 * log((numerator + kTiny) / (denominator + kTiny));
}

/// rho = <g, u> / <m^, u> of two averages, in (-1, 1): 1 where a gradient says of the step before
/// what the momentum had said when it was taken, below 0 where it went too far.
template <typename Signal>
auto bounded_alignment(const Signal& agreement, const Signal& expected) {
  using at::tanh, std::tanh;
  return tanh(0.5 * finite_or_zero(agreement / expected));
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
/// average over all tensors, weighted by their sizes, with "mean_" before the name. `aligned` ones
/// are of rules with alignment.
template <typename Of>
struct Feature {
  static constexpr bool kOfFacts = std::is_invocable_v<Of, const TensorFacts&>;

  const char* name;
  Of of;
  bool averaged = false;
  bool aligned = false;
};
template <typename Of>
Feature(const char*, Of) -> Feature<Of>;
template <typename Of>
Feature(const char*, Of, bool) -> Feature<Of>;
template <typename Of>
Feature(const char*, Of, bool, bool) -> Feature<Of>;

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
    Feature{"surge",
            []<typename S, typename D>(See<S, D> c) {
              using at::tanh, std::tanh;
              return tanh(log_ratio(c.sums.grad_squared, c.sums.second_moment));
            }},
    Feature{"alignment_fast",
            []<typename S, typename D>(See<S, D> c) {
              return bounded_alignment(c.signals.fast_agreement, c.signals.fast_expected);
            },
            true, true},
    Feature{"alignment_slow",
            []<typename S, typename D>(See<S, D> c) {
              return bounded_alignment(c.signals.slow_agreement, c.signals.slow_expected);
            },
            true, true},
    Feature{"alignment_radial",
            []<typename S, typename D>(See<S, D> c) { return c.signals.radial; }, true, true});

template <typename Visit>
void for_each_feature(bool aligned, const Visit& visit) {
  const auto visit_if = [&](const auto& feature) {
    if (aligned || !feature.aligned) visit(feature);
  };
  std::apply([&](const auto&... feature) { (visit_if(feature), ...); }, kFeatures);
}

bool is_aligned(const ops::StepSums& sums) { return sums.grad_dot_update.defined(); }

int64_t num_features(bool aligned) {
  return static_cast<int64_t>(step_feature_names(aligned).size());
}

/// Adds the averages of every list to rows [T, F] of which they are not yet set.
void add_averages(double* rows, const std::vector<TensorFacts>& facts, bool aligned,
                  int64_t num_lists) {
  const int64_t width = num_features(aligned);
  const size_t length = facts.size() / static_cast<size_t>(num_lists);
  int64_t column = 0, target = 0;
  for_each_feature(aligned, [&](const auto&) { ++target; });
  for_each_feature(aligned, [&](const auto& feature) {
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
  const bool aligned = is_aligned(sums);
  const auto count = static_cast<int64_t>(facts.size());
  const int64_t width = num_features(aligned), held = num_signals(aligned);
  const at::Tensor result = at::empty({count, width}, at::kDouble);
  const at::Tensor fresh = in_place ? at::Tensor() : at::empty({count, held}, at::kFloat);
  double* row = result.mutable_data_ptr<double>();
  for (size_t i = 0; i < facts.size(); ++i) {
    Seen<float, double> seen{};
    auto member = std::begin(ops::kStepSums);
    for (double* sum : seen.sums.members()) {
      const at::Tensor& column = sums.*(*member++);
      if (column.defined()) *sum = column.const_data_ptr<double>()[i];
    }
    seen.size = static_cast<double>(std::max<int64_t>(facts[i].size, 1));
    seen.momentum_weight = facts[i].momentum_weight;
    const float* before = signals[i].const_data_ptr<float>();
    const bool known = facts[i].t > 1 &&
                       std::all_of(before, before + held, [](float x) { return std::isfinite(x); });
    Signals<float> old{};
    for (int64_t k = 0; known && k < held; ++k) *old.members()[static_cast<size_t>(k)] = before[k];
    seen.signals = advanced(old, seen.sums, known);
    if (aligned) advance_alignment(old, seen, known, seen.signals);
    if (!in_place) signals[i] = fresh.select(0, static_cast<int64_t>(i));
    float* after = signals[i].mutable_data_ptr<float>();
    for (int64_t k = 0; k < held; ++k) after[k] = *seen.signals.members()[static_cast<size_t>(k)];
    double* next = row + static_cast<int64_t>(i) * width;
    for_each_feature(aligned, [&](const auto& feature) {
      if constexpr (std::remove_reference_t<decltype(feature)>::kOfFacts) {
        *next++ = feature.of(facts[i]);
      } else {
        *next++ = feature.of(seen);
      }
    });
  }
  add_averages(row, facts, aligned, num_lists);
  return result;
}

/// What only the host knows of T tensors, as tensors [T] on a device, by one transfer.
struct HostColumns {
  at::Tensor later, size, share;  // not the first step; coordinates, at least 1; of the list's
  at::Tensor momentum_weight;
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
    add([&](size_t i) { return list[i].momentum_weight; });
    for_each_feature(/*aligned=*/true, [&](const auto& feature) {
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
    momentum_weight = facts[3];
    facts.erase(facts.begin(), facts.begin() + 4);
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
  const bool aligned = is_aligned(sums);
  const at::Tensor all = at::stack(here, 1);  // [num_signals, T]
  const at::Tensor known = is_finite(all).all(0).logical_and(host.later);
  const std::vector<at::Tensor> before = all.masked_fill(known.logical_not(), 0.0).unbind();
  Signals<at::Tensor> old;
  for (size_t k = 0; k < before.size(); ++k) *old.members().at(k) = before[k];
  Seen<at::Tensor, at::Tensor> seen;
  auto member = std::begin(ops::kStepSums);
  for (at::Tensor* sum : seen.sums.members()) *sum = sums.*(*member++);
  seen.size = host.size;
  seen.momentum_weight = host.momentum_weight;
  seen.signals = advanced(old, seen.sums, known);
  if (aligned) advance_alignment(old, seen, known, seen.signals);
  std::vector<at::Tensor> advanced_signals;
  for (size_t k = 0; k < before.size(); ++k) {
    advanced_signals.push_back(*seen.signals.members()[k]);
  }
  const std::vector<at::Tensor> after = at::stack(advanced_signals, 1).unbind();
  if (in_place) at::_foreach_copy_(signals, after);
  for (size_t i = 0; !in_place && i < facts.size(); ++i) {
    signals[i] = after[i].to(signals[i].device());
  }

  auto next = host.facts.begin();
  std::vector<at::Tensor> columns, averaged;
  for_each_feature(aligned, [&](const auto& feature) {
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

const std::vector<std::string>& step_feature_names(bool aligned) {
  const auto list = [](bool with_alignment) {
    std::vector<std::string> own, averages;
    for_each_feature(with_alignment, [&](const auto& feature) {
      own.push_back(feature.name);
      if (feature.averaged) averages.push_back("mean_" + own.back());
    });
    own.insert(own.end(), averages.begin(), averages.end());
    return own;
  };
  static const std::vector<std::string> names = list(false), all = list(true);
  return aligned ? all : names;
}

}  // namespace mnemosyne::optim
