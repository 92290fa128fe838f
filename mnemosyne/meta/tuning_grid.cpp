#include "mnemosyne/meta/tuning_grid.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>

namespace mnemosyne::meta {
namespace {

constexpr int kExtension = 2;
// Rates below 1e-8 and above 1e4 are no learning rates any more: a run that never learns must end.
constexpr int kLowestHalfDecade = -16;
constexpr int kHighestHalfDecade = 8;

}  // namespace

double GridPoint::lr() const { return std::pow(10.0, half_decade / 2.0); }

TuningGrid::TuningGrid(double usual_lr) {
  const int centre = static_cast<int>(std::lround(2 * std::log10(usual_lr)));
  lowest_ = centre - kSmallest / 2;
  highest_ = centre + kSmallest / 2;
}

std::vector<GridPoint> TuningGrid::missing() const {
  int low = lowest_;
  int high = highest_;
  if (!losses_.empty()) {
    const int best_at = best().half_decade;
    for (const auto& [point, loss] : losses_) {
      low = std::min(low, point.half_decade);
      high = std::max(high, point.half_decade);
    }
    if (best_at == low) low = std::max(low - kExtension, kLowestHalfDecade);
    if (best_at == high) high = std::min(high + kExtension, kHighestHalfDecade);
  }
  std::vector<GridPoint> points;
  for (int half_decade = low; half_decade <= high; ++half_decade) {
    for (const Schedule schedule : {Schedule::kConstant, Schedule::kCosine}) {
      const GridPoint point{half_decade, schedule};
      if (losses_.count(point) == 0) points.push_back(point);
    }
  }
  return points;
}

GridPoint TuningGrid::best() const {
  TORCH_CHECK(!losses_.empty(), "[tuning] expected at least one recorded loss, got none");
  return std::min_element(losses_.begin(), losses_.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

}  // namespace mnemosyne::meta
