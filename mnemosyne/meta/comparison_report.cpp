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

std::vector<Curve> curves_of(const ContenderResult& contender) {
  std::vector<Curve> curves;
  for (const RunRecord& run : contender.runs) curves.push_back(run.losses);
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

OverallRatio overall_ratio(const std::vector<std::vector<ContenderSummary>>& cells,
                           size_t contender, const std::string& reference) {
  OverallRatio result{.label = cells.front()[contender].label, .reference = reference};
  std::vector<double> all;
  std::vector<double> cell_means;
  std::vector<double> mean_curves;
  result.worst = std::numeric_limits<double>::infinity();
  for (const auto& cell : cells) {
    const ContenderSummary& summary = cell[contender];
    const std::vector<double>& ratios = summary.ratios.at(reference);
    const double own = geometric_mean(ratios);
    mean_curves.push_back(summary.mean_curve_ratios.at(reference));
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
    for (const std::string& reference : references) {
      const StepsTarget target = steps_target(curves_of(find_reference(result, reference)));
      std::vector<double>& ratios = summary.ratios[reference];
      for (const RunRecord& run : runs) ratios.push_back(steps_ratio(target, run.losses));
      summary.mean_curve_ratios[reference] = steps_ratio(target, mean_of(curves_of(contender)));
    }
    summaries.push_back(std::move(summary));
  }
  return summaries;
}

std::vector<OverallRatio> overall_ratios(const std::vector<std::vector<ContenderSummary>>& cells,
                                         const std::vector<std::string>& references) {
  std::vector<OverallRatio> result;
  for (const std::string& reference : references) {
    for (size_t i = 0; i < cells.front().size(); ++i) {
      result.push_back(overall_ratio(cells, i, reference));
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
  for (const auto& [reference, ratios] : summary.ratios) {
    record.emplace_back("ratios_over_" + reference, ratios);
    record.emplace_back("ratio_over_" + reference, geometric_mean(ratios));
    record.emplace_back("mean_curve_ratio_over_" + reference,
                        summary.mean_curve_ratios.at(reference));
  }
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
