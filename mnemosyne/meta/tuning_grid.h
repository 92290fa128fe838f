#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "mnemosyne/meta/rollout.h"

namespace mnemosyne::meta {

/// One setting of a tuning grid: the learning rate 10^(half_decade / 2) and how it develops.
struct GridPoint {
  int half_decade = 0;
  Schedule schedule = Schedule::kConstant;

  double lr() const;
  friend auto operator<=>(const GridPoint&, const GridPoint&) = default;
};

/// The search for the best learning rate and schedule of one optimizer on one task and length: half
/// decades around the optimizer's usual rate, at every schedule, and two more wherever the best one
/// lies at an edge, until it lies inside.
///
///     TuningGrid grid(1e-3);
///     for (auto missing = grid.missing(); !missing.empty(); missing = grid.missing())
///       for (const GridPoint& point : missing) grid.set(point, final_loss_at(point));
///     grid.best().lr();
class TuningGrid {
 public:
  static constexpr int kSmallest = 7;  ///< Rates of the first grid.

  explicit TuningGrid(double usual_lr);

  /// The points that have to be tried next; empty when the search is over.
  std::vector<GridPoint> missing() const;

  /// Records the final loss of a point, mean over seeds; infinity where a run diverged.
  void set(const GridPoint& point, double loss) { losses_[point] = loss; }

  /// The point of the lowest loss; the smaller rate when two are equal.
  GridPoint best() const;

  const std::map<GridPoint, double>& losses() const { return losses_; }

 private:
  int lowest_;
  int highest_;
  std::map<GridPoint, double> losses_;
};

}  // namespace mnemosyne::meta
