#include "mnemosyne/optim/step_features.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>

namespace mnemosyne::optim {
namespace {

constexpr double kTiny = 1e-30;

/// The signals apart, [T] each.
struct Signals {
  at::Tensor fast_cosine, slow_cosine, fast_log_norm, slow_log_norm, peak_log_norm;

  static Signals of(const at::Tensor& together) {
    std::vector<at::Tensor> own = together.unbind(1);
    return {own.at(0), own.at(1), own.at(2), own.at(3), own.at(4)};
  }

  at::Tensor together() const {
    return at::stack({fast_cosine, slow_cosine, fast_log_norm, slow_log_norm, peak_log_norm}, 1);
  }
};

/// What features are made of, [T] each.
struct Measured {
  Signals signals;
  at::Tensor size;  // coordinates, at least 1
  ops::StepSums sums;
};

at::Tensor log_ratio(const at::Tensor& numerator, const at::Tensor& denominator) {
  return 0.5 * at::log((numerator + kTiny) / (denominator + kTiny));
}

double progress(const TensorFacts& facts) {
  if (!facts.num_steps) return 0.5;
  return std::min(1.0, static_cast<double>(facts.t - 1) / static_cast<double>(*facts.num_steps));
}

double log_aspect(const TensorFacts& facts) {
  const double rows = static_cast<double>(facts.rows), size = static_cast<double>(facts.size);
  return rows > 0 ? std::tanh(0.5 * std::log2(rows * rows / size)) : 0.0;
}

/// A feature: of a tensor's facts, or of what was measured. `averaged` ones come once more, as the
/// average over all tensors, weighted by their sizes, with "mean_" before the name.
struct Feature {
  const char* name;
  double (*of_facts)(const TensorFacts&) = nullptr;
  at::Tensor (*of_measured)(const Measured&) = nullptr;
  bool averaged = false;
};

const std::vector<Feature>& features() {
  using Facts = const TensorFacts&;
  using Columns = const Measured&;
  static const std::vector<Feature> list = {
      {"one", [](Facts) { return 1.0; }},
      {"log_time", [](Facts f) { return std::log10(static_cast<double>(f.t)) / 2.0 - 1.0; }},
      {"num_steps_known", [](Facts f) { return f.num_steps ? 1.0 : 0.0; }},
      {"progress", [](Facts f) { return 2.0 * progress(f) - 1.0; }},
      {"is_matrix", [](Facts f) { return f.rows > 0 ? 1.0 : 0.0; }},
      {"log_size",
       [](Facts f) { return std::log10(std::max(static_cast<double>(f.size), 1.0)) / 2.0 - 1.5; }},
      {"fast_cosine", nullptr, [](Columns c) { return c.signals.fast_cosine; }, true},
      {"slow_cosine", nullptr, [](Columns c) { return c.signals.slow_cosine; }, true},
      {"norm_trend", nullptr,
       [](Columns c) { return at::tanh(c.signals.fast_log_norm - c.signals.slow_log_norm); }, true},
      {"norm_decline", nullptr,
       [](Columns c) {
         return at::tanh((c.signals.slow_log_norm - c.signals.peak_log_norm) / 3.0);
       },
       true},
      {"momentum_norm", nullptr,
       [](Columns c) { return at::tanh(log_ratio(c.sums.new_squared, c.sums.grad_squared)); }},
      {"param_rms", nullptr,
       [](Columns c) {
         const at::Tensor rms = (c.sums.param_squared / c.size).sqrt();
         return at::tanh((rms + 1e-8).log10() + 1.5);
       }},
      {"aspect", log_aspect},
      {"zero_fraction", nullptr, [](Columns c) { return c.sums.zeros / c.size; }},
  };
  return list;
}

at::Tensor on_device(const std::vector<double>& values, const at::Tensor& like) {
  return at::tensor(values, at::kDouble).to(like.options(), /*non_blocking=*/true);
}

/// The features of the facts, one [T] after the other in the order of their declaration.
std::vector<at::Tensor> fact_columns(const std::vector<TensorFacts>& facts,
                                     const at::Tensor& like) {
  std::vector<double> values;
  int64_t count = 0;
  for (const Feature& feature : features()) {
    if (feature.of_facts == nullptr) continue;
    for (const TensorFacts& own : facts) values.push_back(feature.of_facts(own));
    ++count;
  }
  return on_device(values, like).view({count, -1}).unbind();
}

std::vector<double> sizes_of(const std::vector<TensorFacts>& facts, int64_t at_least) {
  std::vector<double> sizes;
  for (const TensorFacts& own : facts) {
    sizes.push_back(static_cast<double>(std::max(own.size, at_least)));
  }
  return sizes;
}

/// Averages over the tensors of each list, [C, T] -> [C, T] with equal numbers within a list.
at::Tensor list_averages(const at::Tensor& columns, const std::vector<TensorFacts>& facts,
                         int64_t num_lists) {
  std::vector<double> shares = sizes_of(facts, 0);
  const size_t length = shares.size() / static_cast<size_t>(num_lists);
  for (size_t begin = 0; begin < shares.size(); begin += length) {
    double total = 0.0;
    for (size_t i = begin; i < begin + length; ++i) total += shares[i];
    for (size_t i = begin; i < begin + length; ++i) shares[i] /= std::max(total, 1.0);
  }
  const at::Tensor lists = columns.unflatten(1, {num_lists, -1});
  const at::Tensor weights = on_device(shares, columns).view({num_lists, -1});
  return (lists * weights).sum(2, /*keepdim=*/true).expand_as(lists).flatten(1);
}

at::Tensor keep(double share, const at::Tensor& old, const at::Tensor& value) {
  return static_cast<float>(share) * old + (1.0f - static_cast<float>(share)) * value;
}

}  // namespace

at::Tensor next_signals(const at::Tensor& signals, const ops::StepSums& sums,
                        const std::vector<TensorFacts>& facts) {
  constexpr double kFast = 0.8, kSlow = 0.98;
  std::vector<double> is_first;
  for (const TensorFacts& own : facts) is_first.push_back(own.t == 1 ? 1.0 : 0.0);
  const at::Tensor known = signals.isfinite().all(1).logical_and(on_device(is_first, signals) == 0);
  const Signals old = Signals::of(at::where(known.unsqueeze(1), signals, 0.0));

  const at::Tensor norms = sums.grad_squared.sqrt() * sums.old_squared.sqrt();
  const at::Tensor ratio = sums.grad_dot_momentum / norms;
  const at::Tensor cosine =
      at::where((norms > 0).logical_and(ratio.isfinite()), ratio, 0.0).to(signals.scalar_type());
  // A gradient that vanishes has no logarithm.
  const at::Tensor has_norm = (sums.grad_squared > 0).logical_and(sums.grad_squared.isfinite());
  const at::Tensor log_norm =
      (0.5 * at::log(at::where(has_norm, sums.grad_squared, 1.0))).to(signals.scalar_type());
  const auto average = [&](double share, const at::Tensor& before) {
    return at::where(has_norm, at::where(known, keep(share, before, log_norm), log_norm), before);
  };
  Signals next;
  next.fast_cosine = keep(kFast, old.fast_cosine, cosine);
  next.slow_cosine = keep(kSlow, old.slow_cosine, cosine);
  next.fast_log_norm = average(kFast, old.fast_log_norm);
  next.slow_log_norm = average(kSlow, old.slow_log_norm);
  const at::Tensor& slow = next.slow_log_norm;
  const at::Tensor peak = at::where(known, at::maximum(old.peak_log_norm, slow), slow);
  next.peak_log_norm = at::where(has_norm, peak, old.peak_log_norm);
  return next.together();
}

at::Tensor step_features(const std::vector<TensorFacts>& facts, const at::Tensor& signals,
                         const ops::StepSums& sums, int64_t num_lists) {
  const at::Tensor& like = sums.grad_squared;
  const Measured measured{Signals::of(signals.to(like.scalar_type())),
                          on_device(sizes_of(facts, 1), like), sums};
  const std::vector<at::Tensor> known = fact_columns(facts, like);
  std::vector<at::Tensor> result, averaged;
  auto next = known.begin();
  for (const Feature& feature : features()) {
    result.push_back(feature.of_facts != nullptr ? *next++ : feature.of_measured(measured));
    if (feature.averaged) averaged.push_back(result.back());
  }
  const at::Tensor averages = list_averages(at::stack(averaged), facts, num_lists);
  return at::cat({at::stack(result), averages}).t();
}

const std::vector<std::string>& step_feature_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> own, averages;
    for (const Feature& feature : features()) {
      own.push_back(feature.name);
      if (feature.averaged) averages.push_back("mean_" + own.back());
    }
    own.insert(own.end(), averages.begin(), averages.end());
    return own;
  }();
  return names;
}

}  // namespace mnemosyne::optim
