#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <memory>
#include <optional>

#include "bench_attention.h"
#include "bench_memory.h"
#include "command.h"
#include "mnemosyne/io/record.h"
#include "mnemosyne/meta/step_timing.h"
#include "mnemosyne/ops/orthogonalize/benchmark.h"
#include "mnemosyne/ops/without_kernels.h"
#include "mnemosyne/optim/benchmark_memory.h"
#include "table.h"
#include "threads_option.h"

namespace mnemosyne::cli {
namespace {

struct BenchOptions {
  std::vector<std::string> optimizers{"adamw", "sgd",        "adafactor", "schedule-free",
                                      "muon",  "orthogonal", "mnemosyne", "lstm"};
  int64_t repetitions = 9;
  std::vector<int> threads{1};
  std::string path = "fused";
};

// Rules with a large state, the LSTMs, take minutes and gigabytes on the whole list; their cost is
// per coordinate, so that one block says the same.
constexpr double kLargeState = 64;
constexpr size_t kBlockFrom = 4;
constexpr size_t kBlockTensors = 12;

struct StepRow {
  std::string label;
  bool whole;  // timed on the whole list
  meta::StepCost cost;
};

std::vector<StepRow> time_optimizers(const BenchOptions& options) {
  std::optional<ops::WithoutKernels> without_kernels;
  if (options.path == "tensor") without_kernels.emplace();
  const std::vector<at::Tensor> params = meta::vit_tiny_params();
  const auto from = params.begin() + kBlockFrom;
  const std::vector<at::Tensor> block(from, from + kBlockTensors);
  std::vector<meta::Contender> light;
  std::vector<meta::Contender> heavy;
  std::vector<StepRow> rows;
  for (const std::string& text : options.optimizers) {
    meta::Contender contender = meta::parse_contender(text, /*tune=*/false);
    const bool whole = meta::state_bytes_per_param(*contender.rule, block) <= kLargeState;
    rows.push_back({contender.label, whole, {}});
    (whole ? light : heavy).push_back(std::move(contender));
  }
  const auto light_costs = meta::time_steps(light, params, options.repetitions);
  const auto heavy_costs = meta::time_steps(heavy, block, options.repetitions);
  size_t light_at = 0;
  size_t heavy_at = 0;
  for (StepRow& row : rows) {
    row.cost = row.whole ? light_costs[light_at++] : heavy_costs[heavy_at++];
  }
  return rows;
}

void time_orthogonalize(int threads, int64_t repetitions, std::vector<io::Record>& records) {
  const ops::OrthogonalizeTimes times =
      ops::benchmark_orthogonalize(ops::vit_tiny_matrices(), static_cast<int>(repetitions));
  fmt::print("Orthogonalisation of ViT-Ti's matrices: {:.3g} ms, as in Muon {:.3g} ms: {:.2f}x\n",
             1e3 * times.fused, 1e3 * times.muon, times.muon / times.fused);
  records.push_back({{"threads", threads},
                     {"orthogonalize_milliseconds", 1e3 * times.fused},
                     {"orthogonalize_over_muon", times.muon / times.fused}});
}

/// The memory step of meta-training: the tensors of one small MLP, and one large tensor.
void time_memory_step(int threads, std::vector<io::Record>& records) {
  for (const std::vector<int64_t>& sizes : {std::vector<int64_t>{2048, 32, 320, 10}, {100000}}) {
    const optim::MemoryBenchmark times = optim::benchmark_memory_step({.sizes = sizes});
    fmt::print(
        "Memory step, {} tensor(s) from {} coordinates, forward and backward over 20 steps: {:.3g} "
        "coordinate-steps a second, reference {:.3g}: {:.1f}x; in place {:.3g}\n",
        sizes.size(), sizes[0], times.fused, times.reference, times.speedup(), times.in_place);
    records.push_back({{"threads", threads},
                       {"memory_step_coordinates", static_cast<double>(sizes[0])},
                       {"memory_step_fused", times.fused},
                       {"memory_step_in_place", times.in_place},
                       {"memory_step_over_reference", times.speedup()}});
  }
}

int run_bench_optimizer(const BenchOptions& options, bool json) {
  std::vector<std::vector<StepRow>> steps;  // by number of threads
  for (const int threads : options.threads) {
    at::set_num_threads(threads);
    steps.push_back(time_optimizers(options));
  }
  Table table({"optimizer", "parameters", "threads", "ms a step", threads_heading(options.threads),
               "x fused AdamW", "state bytes/parameter", "operations", "host reads"},
              2);
  std::vector<io::Record> records;
  for (size_t i = 0; i < steps[0].size(); ++i) {
    for (size_t t = 0; t < steps.size(); ++t) {
      const StepRow& row = steps[t][i];
      const double of_first = row.cost.milliseconds / steps[0][i].cost.milliseconds;
      table.add({row.label, row.whole ? "all of ViT-Ti" : "one block",
                 fmt::format("{}", options.threads[t]), number(row.cost.milliseconds, 3),
                 number(of_first, 2), number(row.cost.over_fused_adamw, 3),
                 number(row.cost.bytes_per_param, 3), fmt::format("{}", row.cost.operations),
                 fmt::format("{}", row.cost.host_reads)});
      records.push_back({{"optimizer", row.label},
                         {"threads", options.threads[t]},
                         {"milliseconds", row.cost.milliseconds},
                         {"of_first_threads", of_first},
                         {"over_fused_adamw", row.cost.over_fused_adamw},
                         {"state_bytes_per_parameter", row.cost.bytes_per_param},
                         {"operations", static_cast<double>(row.cost.operations)},
                         {"host_reads", static_cast<double>(row.cost.host_reads)}});
    }
  }
  fmt::print("A step over ViT-Ti's parameters, {}\n\n{}",
             options.path == "tensor" ? "by tensor operations as on a GPU" : "through the kernels",
             table.text());
  for (const int threads : options.threads) {
    at::set_num_threads(threads);
    fmt::print("\n{} thread{}\n", threads, threads == 1 ? "" : "s");
    time_orthogonalize(threads, options.repetitions, records);
    time_memory_step(threads, records);
  }
  if (json) fmt::print("{}\n", io::to_json(records));
  return 0;
}

}  // namespace

void add_bench_command(CLI::App& app, Context& context) {
  const auto options = std::make_shared<BenchOptions>();
  CLI::App* command = app.add_subcommand(
      "bench", "Measure speed, as ratios within one process, and what memories keep");
  command->require_subcommand(1);
  CLI::App* optimizer = command->add_subcommand(
      "optimizer", "Steps over ViT-Ti's 5.5 million parameters, and their kernels");
  optimizer->add_option("--optimizers", options->optimizers, "Optimizers, as in `compare`")
      ->delimiter(',')
      ->type_name("NAME,...")
      ->capture_default_str();
  optimizer->add_option("--repetitions", options->repetitions, "Medians are taken over these")
      ->check(whole_number(1))
      ->type_name("K")
      ->capture_default_str();
  optimizer
      ->add_option("--path", options->path,
                   "fused: kernels where there are some; tensor: what a GPU runs, on the CPU")
      ->check(CLI::IsMember({"fused", "tensor"}))
      ->capture_default_str();
  add_threads_option(*optimizer, options->threads);
  optimizer->callback([options, &context] {
    context.run = [=, &context] { return run_bench_optimizer(*options, context.json); };
  });
  add_bench_attention(*command, context);
  add_bench_memory(*command, context);
}

}  // namespace mnemosyne::cli
