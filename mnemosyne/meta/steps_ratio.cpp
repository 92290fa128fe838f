#include "mnemosyne/meta/steps_ratio.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace mnemosyne::meta {
namespace {

constexpr double kMargin = 0.02;
constexpr double kBestMiss = 0.5;
constexpr double kWorst = 0.01;

// Steps until a smoothed curve is at or below `loss`; 0 when it never is.
int64_t steps_to_reach(const Curve& smoothed, int64_t num_steps, double loss) {
  const auto reached =
      std::find_if(smoothed.begin(), smoothed.end(), [&](float value) { return value <= loss; });
  if (reached == smoothed.end()) return 0;
  const int64_t window = num_steps - static_cast<int64_t>(smoothed.size()) + 1;
  return reached - smoothed.begin() + window;
}

Curve mean_curve(const std::vector<Curve>& curves) {
  Curve mean(curves.front().size());
  for (size_t i = 0; i < mean.size(); ++i) {
    double sum = 0;
    for (const Curve& curve : curves) sum += curve.at(i);
    mean[i] = static_cast<float>(sum / static_cast<double>(curves.size()));
  }
  return mean;
}

}  // namespace

Curve smooth(const Curve& losses, int64_t window) {
  const auto count = static_cast<int64_t>(losses.size());
  window = std::clamp<int64_t>(window, 1, std::max<int64_t>(count, 1));
  Curve result;
  for (int64_t i = 0; i + window <= count; ++i) {
    double sum = 0;
    for (int64_t j = 0; j < window; ++j) sum += losses[static_cast<size_t>(i + j)];
    result.push_back(static_cast<float>(sum / static_cast<double>(window)));
  }
  return result;
}

Curve between(const Curve& values, int64_t num_steps) {
  TORCH_CHECK(values.size() > 1, "[between] expected at least two values, got ", values.size());
  Curve result;
  const auto spans = static_cast<double>(values.size() - 1);
  for (int64_t step = 1; step <= num_steps; ++step) {
    const double place = spans * static_cast<double>(step) / static_cast<double>(num_steps);
    const auto before = std::min(static_cast<size_t>(place), values.size() - 2);
    const double share = place - static_cast<double>(before);
    // A share of zero takes nothing of an infinite value.
    const double next = share > 0.0 ? share * values[before + 1] : 0.0;
    const double own = share < 1.0 ? (1.0 - share) * values[before] : 0.0;
    result.push_back(static_cast<float>(own + next));
  }
  return result;
}

double final_loss(const Curve& losses, int64_t window) {
  TORCH_CHECK(!losses.empty(), "[final_loss] expected at least one loss, got none");
  const auto length = std::min<std::ptrdiff_t>(window, static_cast<std::ptrdiff_t>(losses.size()));
  const float last = smooth({losses.end() - length, losses.end()}, window).back();
  return std::isfinite(last) ? last : std::numeric_limits<double>::infinity();
}

StepsTarget steps_target(const std::vector<Curve>& baseline_runs, int64_t window) {
  std::vector<Curve> finite;
  for (const Curve& run : baseline_runs) {
    if (std::isfinite(final_loss(run, window))) finite.push_back(smooth(run, window));
  }
  if (finite.empty()) return {std::numeric_limits<double>::infinity(), 0};
  const Curve mean = mean_curve(finite);
  const double last = mean.back();
  const double target = last + kMargin * std::abs(last);
  return {target, steps_to_reach(mean, static_cast<int64_t>(baseline_runs.front().size()), target)};
}

double steps_ratio(const StepsTarget& target, const Curve& run, int64_t window) {
  if (!std::isfinite(target.loss)) return std::numeric_limits<double>::quiet_NaN();
  const int64_t steps =
      steps_to_reach(smooth(run, window), static_cast<int64_t>(run.size()), target.loss);
  if (steps > 0) return static_cast<double>(target.steps) / static_cast<double>(steps);
  const double last = final_loss(run, window);
  // The quotient says how near the run came only while losses are positive.
  const double nearness = target.loss > 0 && last > 0 ? target.loss / last : 0;
  return std::clamp(kBestMiss * nearness, kWorst, kBestMiss);
}

double geometric_mean(const std::vector<double>& values) {
  double sum = 0;
  int64_t count = 0;
  for (const double value : values) {
    if (std::isnan(value)) continue;
    sum += std::log(value);
    ++count;
  }
  return count > 0 ? std::exp(sum / static_cast<double>(count))
                   : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace mnemosyne::meta
