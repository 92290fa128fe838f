#pragma once

#include <map>
#include <string>
#include <vector>

#include "mnemosyne/io/record.h"
#include "mnemosyne/meta/comparison.h"

namespace mnemosyne::meta {

/// One contender on one cell in figures; losses are means over the seeds.
struct ContenderSummary {
  std::string cell;
  std::string label;
  bool tuned = false;
  double lr = 0;
  Schedule schedule = Schedule::kConstant;
  double training_loss = 0;         ///< Last smoothed loss; infinity when a run diverged.
  double training_loss_spread = 0;  ///< Standard deviation over the seeds.
  double validation_loss = 0;       ///< NaN where there is none; so is the accuracy.
  double validation_accuracy = 0;
  double area_under_curve = 0;
  int64_t diverged = 0;  ///< Runs.
  int64_t runs = 0;

  /// Steps ratio over each reference, by seed (see steps_ratio.h).
  std::map<std::string, std::vector<double>> ratios = {};
  /// The same of the mean curve over the seeds: less noisy where seeds differ by more than 2 %.
  std::map<std::string, double> mean_curve_ratios = {};
};

/// A contender over all cells against one reference.
struct OverallRatio {
  std::string label;
  std::string reference;
  double geometric_mean = 0;  ///< Over cells and seeds.
  double low = 0;             ///< 95 % bootstrap interval of it, resampling cells.
  double high = 0;
  double worst = 0;  ///< The lowest cell, geometric mean over its seeds.
  std::string worst_cell = {};
  double mean_curve = 0;  ///< Geometric mean over cells of the ratios of mean curves.
};

/// Figures of one cell. InputError when a reference is no contender's label.
std::vector<ContenderSummary> summarize(const CellResult& result,
                                        const std::vector<std::string>& references);

/// Every contender against every reference over all cells.
std::vector<OverallRatio> overall_ratios(const std::vector<std::vector<ContenderSummary>>& cells,
                                         const std::vector<std::string>& references);

io::Record to_record(const ContenderSummary& summary);
io::Record to_record(const OverallRatio& ratio);

/// What tuning saw: one record per cell, contender and setting.
std::vector<io::Record> tuning_records(const std::vector<CellResult>& results);

}  // namespace mnemosyne::meta
