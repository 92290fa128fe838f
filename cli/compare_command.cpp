#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <memory>

#include "command.h"
#include "mnemosyne/core/device.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/io/file.h"
#include "mnemosyne/io/record.h"
#include "mnemosyne/meta/comparison.h"
#include "mnemosyne/meta/comparison_report.h"
#include "mnemosyne/meta/step_timing.h"
#include "mnemosyne/tasks/registry.h"
#include "mnemosyne/tasks/suites.h"
#include "progress.h"
#include "table.h"

namespace mnemosyne::cli {
namespace {

struct CompareOptions {
  std::vector<std::string> tasks;
  std::vector<int64_t> steps;
  std::vector<std::string> optimizers{"mnemosyne", "adamw"};
  std::vector<std::string> references;
  bool tune = false;
  int64_t seeds = 5;
  int64_t tune_seeds = 3;
  int64_t threads = 1;
  std::string data;
  std::string device = "cpu";
  std::string out;
};

std::vector<std::string> expanded(const std::vector<std::string>& names) {
  std::vector<std::string> all;
  for (const std::string& name : names) {
    const std::vector<std::string> cells = tasks::expand_suite(name);
    all.insert(all.end(), cells.begin(), cells.end());
  }
  return all;
}

// "NAME" at every length of --steps, "NAME@STEPS" at its own.
std::vector<meta::Cell> make_cells(const CompareOptions& options) {
  std::vector<meta::Cell> cells;
  for (const std::string& text : expanded(options.tasks)) {
    const size_t at = text.find('@');
    const std::string name = text.substr(0, at);
    const std::shared_ptr<const tasks::Task> task = tasks::make_task(name, options.data);
    std::vector<int64_t> lengths = options.steps;
    if (at != std::string::npos) {
      int64_t length = 0;
      const char* end = text.data() + text.size();
      const auto [stopped, error] = std::from_chars(text.data() + at + 1, end, length);
      if (error != std::errc() || stopped != end || length < 1) {
        throw InputError("[task] expected NAME or NAME@STEPS, got " + io::in_quotes(text));
      }
      lengths = {length};
    }
    if (lengths.empty()) lengths = {tasks::task_info(name).default_steps};
    for (const int64_t length : lengths) cells.push_back({task, length});
  }
  return cells;
}

// Those asked for, else AdamW and Muon where they take part.
std::vector<std::string> choose_references(const CompareOptions& options,
                                           const std::vector<meta::Contender>& contenders) {
  const auto takes_part = [&](const std::string& label) {
    return std::any_of(contenders.begin(), contenders.end(),
                       [&](const meta::Contender& contender) { return contender.label == label; });
  };
  std::vector<std::string> references;
  for (const std::string& label : options.references) {
    if (!takes_part(label)) {
      throw InputError("[reference] expected one of --optimizers, got " + io::in_quotes(label));
    }
    references.push_back(label);
  }
  if (!references.empty()) return references;
  for (const std::string label : {"adamw", "muon"}) {
    if (takes_part(label)) references.push_back(label);
  }
  return references;
}

std::string rate_text(const meta::ContenderSummary& summary) {
  return number(summary.lr, 2) + (summary.schedule == meta::Schedule::kCosine ? " cosine" : "") +
         (summary.tuned ? " (tuned)" : "");
}

// Costs by contender; the same for every length of a task, so that each is timed once.
class StepCosts {
 public:
  StepCosts(const std::vector<meta::Contender>& contenders, at::Device device)
      : contenders_(contenders), device_(device) {}

  const std::vector<meta::StepCost>& of(const tasks::Task& task) {
    constexpr int64_t kRepetitions = 7;
    auto& costs = costs_[task.name()];
    if (costs.empty()) {
      costs = meta::time_steps(contenders_, tasks::on_device(task.init(0), device_), kRepetitions);
    }
    return costs;
  }

 private:
  const std::vector<meta::Contender>& contenders_;
  at::Device device_;
  std::map<std::string, std::vector<meta::StepCost>> costs_;
};

std::string cell_table(const std::vector<meta::ContenderSummary>& cell,
                       const std::vector<meta::StepCost>& costs,
                       const std::vector<std::string>& references) {
  std::vector<std::string> head{"optimizer", "rate",     "train loss", "+-",
                                "val loss",  "accuracy", "mean loss",  "diverged"};
  for (const std::string& reference : references) {
    head.insert(head.end(), {"x " + reference, "x val"});
  }
  head.insert(head.end(), {"state B/param", "step x fused AdamW"});
  Table table(head, 2);
  for (size_t i = 0; i < cell.size(); ++i) {
    const meta::ContenderSummary& summary = cell[i];
    std::vector<std::string> row{summary.label,
                                 rate_text(summary),
                                 number(summary.training_loss),
                                 number(summary.training_loss_spread, 2),
                                 number(summary.validation_loss),
                                 number(summary.validation_accuracy),
                                 number(summary.area_under_curve),
                                 fmt::format("{}/{}", summary.diverged, summary.runs)};
    for (const std::string& reference : references) {
      row.push_back(number(meta::geometric_mean(summary.training_ratios.by_seed.at(reference)), 3));
      row.push_back(
          number(meta::geometric_mean(summary.validation_ratios.by_seed.at(reference)), 3));
    }
    row.push_back(number(costs[i].bytes_per_param, 3));
    row.push_back(number(costs[i].over_fused_adamw, 3));
    table.add(row);
  }
  return table.text();
}

std::string overall_table(const std::vector<meta::OverallRatio>& ratios) {
  Table table({"optimizer", "over", "steps ratio", "95 %", "worst", "on", "mean curves"}, 2);
  for (const meta::OverallRatio& ratio : ratios) {
    table.add({ratio.label, ratio.reference, number(ratio.geometric_mean, 3),
               number(ratio.low, 3) + " to " + number(ratio.high, 3), number(ratio.worst, 3),
               ratio.worst_cell, number(ratio.mean_curve, 3)});
  }
  return table.text();
}

struct Report {
  std::vector<io::Record> rows;
  std::vector<io::Record> overall, overall_validation;
  std::string text;  // Markdown
};

Report make_report(const std::vector<meta::CellResult>& results,
                   const std::vector<meta::Contender>& contenders,
                   const std::vector<std::string>& references, at::Device device) {
  Report report;
  StepCosts step_costs(contenders, device);
  std::vector<std::vector<meta::ContenderSummary>> cells;
  for (const meta::CellResult& result : results) {
    const auto& cell = cells.emplace_back(meta::summarize(result, references));
    const std::vector<meta::StepCost>& costs = step_costs.of(*result.cell.task);
    for (size_t i = 0; i < cell.size(); ++i) {
      io::Record row = to_record(cell[i]);
      row.emplace_back("state_bytes_per_parameter", costs[i].bytes_per_param);
      row.emplace_back("step_milliseconds", costs[i].milliseconds);
      row.emplace_back("step_over_fused_adamw", costs[i].over_fused_adamw);
      report.rows.push_back(std::move(row));
    }
    report.text += fmt::format("{}, {} steps\n\n{}\n", result.cell.task->name(),
                               result.cell.num_steps, cell_table(cell, costs, references));
  }
  if (references.empty()) return report;
  const auto add = [&](meta::CurveKind kind, const char* title, std::vector<io::Record>& records) {
    const auto overall = meta::overall_ratios(cells, references, kind);
    for (const meta::OverallRatio& ratio : overall) records.push_back(to_record(ratio));
    report.text += fmt::format("{}\n\n{}", title, overall_table(overall));
  };
  add(meta::CurveKind::kTraining,
      "Steps ratio over all (geometric mean over tasks and seeds, > 1 is faster)", report.overall);
  add(meta::CurveKind::kValidation, "\nThe same of validation curves", report.overall_validation);
  return report;
}

std::string json_of(const Report& report, const std::string& separator) {
  return "{\"rows\": " + io::to_json(report.rows, separator) +
         ", \"overall\": " + io::to_json(report.overall, separator) +
         ", \"overall_validation\": " + io::to_json(report.overall_validation, separator) + "}";
}

void write_results(const std::string& folder, const Report& report,
                   const std::vector<meta::CellResult>& results) {
  const std::string json = json_of(report, ",\n") + "\n";
  const std::string tuning = io::to_json(meta::tuning_records(results), ",\n") + "\n";
  io::write_file(folder + "/results.json", {json});
  io::write_file(folder + "/tuning.json", {tuning});
  io::write_file(folder + "/table.md", {report.text});
}

int run_compare(const CompareOptions& options, bool json) {
  const at::Device device = parse_device(options.device);
  meta::ComparisonOptions comparison{.cells = make_cells(options),
                                     .contenders = {},
                                     .num_seeds = options.seeds,
                                     .num_tuning_seeds = options.tune_seeds,
                                     .num_threads = options.threads,
                                     .device = device,
                                     .folder = options.out};
  for (const std::string& text : options.optimizers) {
    comparison.contenders.push_back(meta::parse_contender(text, options.tune));
  }
  const auto references = choose_references(options, comparison.contenders);
  if (!options.out.empty()) make_folder(options.out);
  at::set_num_threads(1);  // of the step times; runs have threads of their own

  watch_interrupts();
  keep_freed_memory();
  Progress progress("steps");
  const auto results = meta::compare(comparison, {.on_progress =
                                                      [&](const meta::ComparisonProgress& now) {
                                                        progress.update(now.stage + " " + now.piece,
                                                                        now.done, now.total);
                                                      },
                                                  .should_stop = interrupted});
  progress.finish();

  const Report report = make_report(results, comparison.contenders, references, device);
  fmt::print("{}", report.text);
  if (!options.out.empty()) {
    write_results(options.out, report, results);
    draw_curves(options.out);
  }
  if (json) fmt::print("{}\n", json_of(report, ", "));
  return 0;
}

}  // namespace

void add_compare_command(CLI::App& app, Context& context) {
  const auto options = std::make_shared<CompareOptions>();
  CLI::App* command = app.add_subcommand(
      "compare", "Compare optimizers on tasks: tuned baselines, steps ratios, learning curves");
  command
      ->add_option(
          "--task", options->tasks,
          "Tasks, each NAME or NAME@STEPS; \"validation\" and \"test\" are those that weights are "
          "chosen and judged by")
      ->required()
      ->delimiter(',')
      ->type_name("NAME,...");
  command->add_option("--steps", options->steps, "Lengths for tasks without @STEPS")
      ->delimiter(',')
      ->check(whole_number(1))
      ->type_name("N,...")
      ->default_str("the task's own");
  command
      ->add_option("--optimizers", options->optimizers,
                   "Optimizers, each [LABEL=]NAME or weights file, then @RATE, :cosine, :num_steps "
                   "(told the length), + (tuned)")
      ->delimiter(',')
      ->type_name("NAME,...")
      ->default_str("mnemosyne,adamw");
  command->add_option("--reference", options->references, "Whose steps the ratios are over")
      ->delimiter(',')
      ->type_name("NAME,...")
      ->default_str("adamw,muon where they take part");
  command->add_flag("--tune", options->tune,
                    "Tune rate and schedule of sgd, adam, adamw, adafactor and muon per task");
  command->add_option("--seeds", options->seeds, "Fresh seeds that are reported")
      ->check(whole_number(1))
      ->type_name("K")
      ->capture_default_str();
  command->add_option("--tune-seeds", options->tune_seeds, "Seeds that rates are tuned on")
      ->check(whole_number(1))
      ->type_name("K")
      ->capture_default_str();
  command->add_option("--threads", options->threads, "Runs side by side, one thread each")
      ->check(whole_number(1))
      ->type_name("T")
      ->capture_default_str();
  add_data_option(*command, options->data);
  add_device_option(*command, options->device);
  command
      ->add_option("--out", options->out,
                   "Folder for curves, tables and the picture; finished runs in it are reused")
      ->type_name("DIR");
  command->callback([options, &context] {
    context.run = [=, &context] { return run_compare(*options, context.json); };
  });
}

}  // namespace mnemosyne::cli
