#include "mnemosyne/meta/fitness.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/error.h"

namespace mnemosyne::meta {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A population that differs by less than this (in log-loss) is not blown up to the size of the
// others.
constexpr double kSmallestSpread = 1e-4;

double member_fitness(const std::vector<std::vector<float>>& losses, size_t member,
                      float validation, const FitnessOptions& options) {
  const int64_t steps = static_cast<int64_t>(losses.size());
  const int64_t tail = std::clamp<int64_t>(std::llround(options.final_fraction * steps), 1, steps);
  const int64_t window = std::clamp<int64_t>(options.smoothing, 1, tail);
  const double first = losses.front()[member];
  double whole = 0, end = 0;
  for (int64_t t = 0; t < steps; ++t) whole += log_loss_ratio(losses[t][member], first, options);
  for (int64_t t = steps - tail; t < steps; ++t) {
    double sum = 0;
    const int64_t count = std::min(window, t + 1);
    for (int64_t i = t + 1 - count; i <= t; ++i) sum += losses[i][member];
    end += log_loss_ratio(sum / count, first, options);
  }
  if (!std::isfinite(whole)) return kInfinity;
  const double training =
      options.final_weight * end / tail + (1 - options.final_weight) * whole / steps;
  if (options.validation_weight == 0) return training;
  return (1 - options.validation_weight) * training +
         options.validation_weight * log_loss_ratio(validation, first, options);
}

std::vector<double> centred_ranks(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    // Equal members share the mean of their places.
    const double place = 0.5 * static_cast<double>(begin + end - 1);
    for (size_t i = begin; i < end; ++i) {
      ranks[order[i]] = place / static_cast<double>(values.size() - 1) - 0.5;
    }
  }
  return ranks;
}

}  // namespace

double log_loss_ratio(double loss, double first, const FitnessOptions& options) {
  if (!std::isfinite(loss)) return kInfinity;
  const double ratio = std::max(loss, 0.0) / std::max(first, 1e-30);
  return std::min(std::log(ratio + options.loss_floor), options.log_ceiling);
}

std::vector<double> run_fitness(const std::vector<std::vector<float>>& losses,
                                const std::vector<float>& validation,
                                const FitnessOptions& options) {
  if (losses.empty()) throw InputError("[fitness] expected at least one step, got none");
  // A task without held-out data is judged by its training loss alone.
  FitnessOptions used = options;
  if (validation.empty()) used.validation_weight = 0;
  std::vector<double> result;
  for (size_t p = 0; p < losses.front().size(); ++p) {
    result.push_back(member_fitness(losses, p, validation.empty() ? 0 : validation[p], used));
  }
  return result;
}

FitnessShaping parse_shaping(const std::string& name) {
  static const Choices<FitnessShaping> shapings = {{"none", FitnessShaping::kNone},
                                                   {"spread", FitnessShaping::kSpread},
                                                   {"rank", FitnessShaping::kRank}};
  return one_of("shaping", name, shapings);
}

std::vector<double> shape_fitness(std::vector<double> fitness, FitnessShaping shaping) {
  double best = kInfinity, worst = -kInfinity;
  bool any_bad = false;
  for (const double value : fitness) {
    if (std::isfinite(value)) {
      best = std::min(best, value);
      worst = std::max(worst, value);
    } else {
      any_bad = true;
    }
  }
  if (worst < best || (worst == best && !any_bad)) return {};
  const double margin = worst > best ? worst - best : 1.0;
  for (double& value : fitness) {
    if (!std::isfinite(value)) value = worst + margin;
  }
  if (shaping == FitnessShaping::kRank) return centred_ranks(fitness);
  if (shaping == FitnessShaping::kSpread) {
    const double mean = finite_mean(fitness);
    double variance = 0;
    for (const double value : fitness) variance += (value - mean) * (value - mean);
    const double spread = std::sqrt(variance / static_cast<double>(fitness.size()));
    for (double& value : fitness) value /= std::max(spread, kSmallestSpread);
  }
  return fitness;
}

double finite_mean(const std::vector<double>& values) {
  double sum = 0;
  int64_t count = 0;
  for (const double value : values) {
    if (!std::isfinite(value)) continue;
    sum += value;
    ++count;
  }
  return count > 0 ? sum / static_cast<double>(count) : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace mnemosyne::meta
