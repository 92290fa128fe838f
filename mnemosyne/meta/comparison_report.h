#pragma once

#include <map>
#include <string>
#include <vector>

#include "mnemosyne/io/record.h"
#include "mnemosyne/meta/comparison.h"

namespace mnemosyne::meta {

/// Steps ratios of one contender on one cell over each reference (see steps_ratio.h).
struct StepsRatios {
  std::map<std::string, std::vector<double>> by_seed = {};
  /// Of the mean curve over the seeds: less noisy where seeds differ by more than 2 %.
  std::map<std::string, double> of_mean_curve = {};
};

/// Whose curves a ratio is of: losses of training batches, or what is measured on held-out data
/// after every twentieth of the run.
enum class CurveKind { kTraining, kValidation };

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

  StepsRatios training_ratios = {};
  StepsRatios validation_ratios = {};  ///< NaN where nothing is held out.

  const StepsRatios& ratios(CurveKind kind) const {
    return kind == CurveKind::kTraining ? training_ratios : validation_ratios;
  }
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

/// Every contender against every reference over all cells that have such curves.
std::vector<OverallRatio> overall_ratios(const std::vector<std::vector<ContenderSummary>>& cells,
                                         const std::vector<std::string>& references,
                                         CurveKind kind = CurveKind::kTraining);

io::Record to_record(const ContenderSummary& summary);
io::Record to_record(const OverallRatio& ratio);

/// What tuning saw: one record per cell, contender and setting.
std::vector<io::Record> tuning_records(const std::vector<CellResult>& results);

}  // namespace mnemosyne::meta
