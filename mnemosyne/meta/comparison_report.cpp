#include "mnemosyne/meta/comparison_report.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "mnemosyne/core/error.h"
#include "mnemosyne/io/file.h"

namespace mnemosyne::meta {
namespace {

double mean(const std::vector<RunRecord>& runs,
            const std::function<double(const RunRecord&)>& value) {
  double sum = 0;
  for (const RunRecord& run : runs) sum += value(run);
  return sum / static_cast<double>(runs.size());
}

double spread(const std::vector<RunRecord>& runs, double centre) {
  const double variance = mean(
      runs, [&](const RunRecord& run) { return std::pow(run.final_training_loss() - centre, 2); });
  return std::isfinite(variance) ? std::sqrt(variance) : std::numeric_limits<double>::infinity();
}

/// One curve a run; none where nothing is held out.
std::vector<Curve> curves_of(const ContenderResult& contender, CurveKind kind) {
  std::vector<Curve> curves;
  for (const RunRecord& run : contender.runs) {
    if (kind == CurveKind::kTraining) {
      curves.push_back(run.losses);
    } else if (run.validation_losses.size() > 1) {
      curves.push_back(between(run.validation_losses, static_cast<int64_t>(run.losses.size())));
    }
  }
  return curves;
}

Curve mean_of(const std::vector<Curve>& curves) {
  Curve result(curves.front().size());
  for (size_t i = 0; i < result.size(); ++i) {
    double sum = 0;
    for (const Curve& curve : curves) sum += curve[i];
    result[i] = static_cast<float>(sum / static_cast<double>(curves.size()));
  }
  return result;
}

const ContenderResult& find_reference(const CellResult& result, const std::string& label) {
  for (const ContenderResult& contender : result.contenders) {
    if (contender.label == label) return contender;
  }
  throw InputError("[reference] expected one of the optimizers compared, got " +
                   io::in_quotes(label));
}

// 95 % interval of exp(mean(logs)) when cells are drawn again with replacement.
std::pair<double, double> bootstrap(const std::vector<double>& cell_means) {
  constexpr int kDraws = 2000;
  std::mt19937_64 generator(0);
  std::uniform_int_distribution<size_t> pick(0, cell_means.size() - 1);
  std::vector<double> means;
  for (int draw = 0; draw < kDraws; ++draw) {
    std::vector<double> sample;
    for (size_t i = 0; i < cell_means.size(); ++i) sample.push_back(cell_means[pick(generator)]);
    means.push_back(geometric_mean(sample));
  }
  std::sort(means.begin(), means.end());
  return {means[kDraws / 40], means[kDraws - 1 - kDraws / 40]};
}

StepsRatios ratios_of(const ContenderResult& contender, const CellResult& result,
                      const std::vector<std::string>& references, CurveKind kind) {
  const int64_t window = kind == CurveKind::kTraining ? kSmoothing : 1;
  const std::vector<Curve> curves = curves_of(contender, kind);
  StepsRatios ratios;
  for (const std::string& reference : references) {
    const std::vector<Curve> bar = curves_of(find_reference(result, reference), kind);
    const bool defined = !curves.empty() && !bar.empty();
    const StepsTarget target = defined ? steps_target(bar, window) : StepsTarget{};
    std::vector<double>& by_seed = ratios.by_seed[reference];
    for (const Curve& curve : curves) {
      if (defined) by_seed.push_back(steps_ratio(target, curve, window));
    }
    ratios.of_mean_curve[reference] = defined ? steps_ratio(target, mean_of(curves), window)
                                              : std::numeric_limits<double>::quiet_NaN();
  }
  return ratios;
}

OverallRatio overall_ratio(const std::vector<std::vector<ContenderSummary>>& cells,
                           size_t contender, const std::string& reference, CurveKind kind) {
  OverallRatio result{.label = cells.front()[contender].label, .reference = reference};
  std::vector<double> all;
  std::vector<double> cell_means;
  std::vector<double> mean_curves;
  result.worst = std::numeric_limits<double>::infinity();
  for (const auto& cell : cells) {
    const ContenderSummary& summary = cell[contender];
    const std::vector<double>& ratios = summary.ratios(kind).by_seed.at(reference);
    const double own = geometric_mean(ratios);
    mean_curves.push_back(summary.ratios(kind).of_mean_curve.at(reference));
    if (std::isnan(own)) continue;
    all.insert(all.end(), ratios.begin(), ratios.end());
    cell_means.push_back(own);
    if (own < result.worst) {
      result.worst = own;
      result.worst_cell = summary.cell;
    }
  }
  result.geometric_mean = geometric_mean(all);
  result.mean_curve = geometric_mean(mean_curves);
  if (cell_means.empty()) {
    result.worst = result.low = result.high = std::numeric_limits<double>::quiet_NaN();
  } else {
    std::tie(result.low, result.high) = bootstrap(cell_means);
  }
  return result;
}

}  // namespace

std::vector<ContenderSummary> summarize(const CellResult& result,
                                        const std::vector<std::string>& references) {
  std::vector<ContenderSummary> summaries;
  for (const ContenderResult& contender : result.contenders) {
    const std::vector<RunRecord>& runs = contender.runs;
    ContenderSummary summary{.cell = result.cell.label(),
                             .label = contender.label,
                             .tuned = contender.tuned,
                             .lr = contender.lr,
                             .schedule = contender.schedule};
    summary.runs = static_cast<int64_t>(runs.size());
    summary.training_loss = mean(runs, &RunRecord::final_training_loss);
    summary.training_loss_spread = spread(runs, summary.training_loss);
    summary.validation_loss = mean(runs, &RunRecord::validation_loss);
    summary.validation_accuracy = mean(runs, &RunRecord::validation_accuracy);
    summary.area_under_curve = mean(runs, &RunRecord::area_under_curve);
    summary.diverged = std::count_if(runs.begin(), runs.end(), std::mem_fn(&RunRecord::diverged));
    summary.training_ratios = ratios_of(contender, result, references, CurveKind::kTraining);
    summary.validation_ratios = ratios_of(contender, result, references, CurveKind::kValidation);
    summaries.push_back(std::move(summary));
  }
  return summaries;
}

std::vector<OverallRatio> overall_ratios(const std::vector<std::vector<ContenderSummary>>& cells,
                                         const std::vector<std::string>& references,
                                         CurveKind kind) {
  std::vector<OverallRatio> result;
  for (const std::string& reference : references) {
    for (size_t i = 0; i < cells.front().size(); ++i) {
      result.push_back(overall_ratio(cells, i, reference, kind));
    }
  }
  return result;
}

io::Record to_record(const ContenderSummary& summary) {
  io::Record record{{"cell", summary.cell},
                    {"optimizer", summary.label},
                    {"tuned", summary.tuned},
                    {"lr", summary.lr},
                    {"schedule", std::string(schedule_name(summary.schedule))},
                    {"training_loss", summary.training_loss},
                    {"training_loss_spread", summary.training_loss_spread},
                    {"validation_loss", summary.validation_loss},
                    {"validation_accuracy", summary.validation_accuracy},
                    {"area_under_curve", summary.area_under_curve},
                    {"diverged", summary.diverged},
                    {"runs", summary.runs}};
  const auto add = [&](const std::string& kind, const StepsRatios& all) {
    for (const auto& [reference, ratios] : all.by_seed) {
      record.emplace_back(kind + "ratios_over_" + reference, ratios);
      record.emplace_back(kind + "ratio_over_" + reference, geometric_mean(ratios));
      record.emplace_back(kind + "mean_curve_ratio_over_" + reference,
                          all.of_mean_curve.at(reference));
    }
  };
  add("", summary.training_ratios);
  add("validation_", summary.validation_ratios);
  return record;
}

io::Record to_record(const OverallRatio& ratio) {
  return {{"optimizer", ratio.label},
          {"reference", ratio.reference},
          {"geometric_mean", ratio.geometric_mean},
          {"low", ratio.low},
          {"high", ratio.high},
          {"worst", ratio.worst},
          {"worst_cell", ratio.worst_cell},
          {"mean_curve", ratio.mean_curve}};
}

std::vector<io::Record> tuning_records(const std::vector<CellResult>& results) {
  std::vector<io::Record> records;
  for (const CellResult& result : results) {
    for (const ContenderResult& contender : result.contenders) {
      for (const auto& [point, loss] : contender.grid) {
        const bool chosen = point.lr() == contender.lr && point.schedule == contender.schedule;
        records.push_back({{"cell", result.cell.label()},
                           {"optimizer", contender.label},
                           {"lr", point.lr()},
                           {"schedule", std::string(schedule_name(point.schedule))},
                           {"training_loss", loss},
                           {"chosen", chosen}});
      }
    }
  }
  return records;
}

}  // namespace mnemosyne::meta
