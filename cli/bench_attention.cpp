#include "bench_attention.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <limits>
#include <memory>

#include "mnemosyne/io/record.h"
#include "mnemosyne/ops/linear_attention/benchmark.h"
#include "table.h"
#include "threads_option.h"

namespace mnemosyne::cli {
namespace {

struct AttentionBenchOptions {
  ops::AttentionBenchmarkOptions attention{};
  bool bidirectional = false;
  std::vector<int> threads{1};
};

constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();

/// NaN, a dash in the table, for what was too long to be timed.
double measured(double value) { return value > 0 ? value : kMissing; }

/// What one row of the table shows, for one number of threads.
struct AttentionRow {
  std::string name;
  int64_t length;
  ops::AttentionCost cost;
  ops::AttentionCost softmax;  // of the same length
  double forward_share;
  double training_share;
};

std::string linear_name(const ops::AttentionBenchmarkOptions& options, size_t index) {
  const int64_t features = options.features[index / options.ranks.size()];
  const int64_t rank = options.ranks[index % options.ranks.size()];
  std::string name = fmt::format("linear, {} features", features);
  if (rank > 0) name += fmt::format(", rank {}{}", rank, options.fading ? " fading" : "");
  return name;
}

std::vector<AttentionRow> rows_of(const ops::AttentionBenchmark& result,
                                  const ops::AttentionBenchmarkOptions& options) {
  std::vector<AttentionRow> rows;
  for (const ops::AttentionBenchmarkRow& row : result.rows) {
    const auto add = [&](const std::string& name, const ops::AttentionCost& cost, double forward,
                         double training) {
      rows.push_back({name, row.length, cost, row.softmax, forward, training});
    };
    add("softmax", row.softmax, kMissing, kMissing);
    add("softmax, learned bias", row.softmax_with_bias, kMissing, kMissing);
    for (size_t i = 0; i < row.linear.size(); ++i) {
      add(linear_name(options, i), row.linear[i], row.forward_share[i], row.training_share[i]);
    }
  }
  return rows;
}

void add_row(Table& table, std::vector<io::Record>& records, int threads, const AttentionRow& row,
             const AttentionRow& first) {
  const double forward = measured(row.cost.forward_seconds);
  const double training = measured(row.cost.training_seconds);
  const double softmax_forward = measured(row.softmax.forward_seconds);
  const double softmax_training = measured(row.softmax.training_seconds);
  const double forward_of_first = forward / measured(first.cost.forward_seconds);
  const double training_of_first = training / measured(first.cost.training_seconds);
  table.add({row.name, fmt::format("{}", row.length), fmt::format("{}", threads),
             number(1e3 * forward, 3), number(1e3 * training, 3), number(forward_of_first, 2),
             number(training_of_first, 2), number(forward / softmax_forward, 3),
             number(training / softmax_training, 3), number(row.forward_share, 2),
             number(row.training_share, 2),
             number(measured(static_cast<double>(row.cost.training_bytes)) / 1048576.0, 3)});
  records.push_back({{"attention", row.name},
                     {"length", row.length},
                     {"threads", threads},
                     {"forward_seconds", forward},
                     {"training_seconds", training},
                     {"forward_of_first_threads", forward_of_first},
                     {"training_of_first_threads", training_of_first},
                     {"forward_over_softmax", forward / softmax_forward},
                     {"training_over_softmax", training / softmax_training},
                     {"forward_share", row.forward_share},
                     {"training_share", row.training_share},
                     {"forward_bytes", row.cost.forward_bytes},
                     {"training_bytes", row.cost.training_bytes}});
}

int run_bench_attention(AttentionBenchOptions options, bool json) {
  options.attention.causal = !options.bidirectional;
  std::vector<std::vector<AttentionRow>> rows;  // by number of threads
  std::string rates;
  for (const int threads : options.threads) {
    at::set_num_threads(threads);
    const ops::AttentionBenchmark result = ops::benchmark_attention(options.attention);
    rows.push_back(rows_of(result, options.attention));
    rates += fmt::format("{}{:.3g} on {}", rates.empty() ? "" : ", ", 1e-9 * result.multiply_rate,
                         threads);
  }
  Table table({"attention", "L", "threads", "forward ms", "+ backward ms",
               threads_heading(options.threads), "+ backward", "over softmax", "+ backward",
               "share", "+ backward", "peak MiB"});
  std::vector<io::Record> records;
  for (size_t i = 0; i < rows[0].size(); ++i) {
    for (size_t t = 0; t < rows.size(); ++t) {
      add_row(table, records, options.threads[t], rows[t][i], rows[0][i]);
    }
  }
  fmt::print("{} attention, {} heads of {}; best product in GFLOP/s: {} thread(s)\n\n{}",
             options.bidirectional ? "Bidirectional" : "Causal", options.attention.heads,
             options.attention.depth, rates, table.text());
  if (json) fmt::print("{}\n", io::to_json(records));
  return 0;
}

}  // namespace

void add_bench_attention(CLI::App& bench, Context& context) {
  const auto options = std::make_shared<AttentionBenchOptions>();
  CLI::App* command = bench.add_subcommand(
      "attention", "Time and peak memory of attention against its length, beside softmax");
  const auto numbers = [&](const std::string& name, std::vector<int64_t>& values,
                           const std::string& text, int64_t least = 1) {
    command->add_option(name, values, text)
        ->delimiter(',')
        ->check(whole_number(least))
        ->type_name("N,...")
        ->capture_default_str();
  };
  const auto number_option = [&](const std::string& name, auto& value, const std::string& text) {
    command->add_option(name, value, text)
        ->check(whole_number(1))
        ->type_name("N")
        ->capture_default_str();
  };
  numbers("--lengths", options->attention.lengths, "Lengths L");
  numbers("--features", options->attention.features, "Numbers of positive random features");
  number_option("--heads", options->attention.heads, "Heads");
  number_option("--depth", options->attention.depth, "Depth of a head");
  number_option("--repetitions", options->attention.repetitions, "The fastest of these counts");
  add_threads_option(*command, options->threads);
  numbers("--rank", options->attention.ranks, "Ranks of position factors; 0: none", 0);
  command->add_flag("--fading", options->attention.fading, "Factors fade, as damped positions do");
  command->add_flag("--bidirectional", options->bidirectional, "Not causal");
  command->callback([options, &context] {
    context.run = [=, &context] { return run_bench_attention(*options, context.json); };
  });
}

}  // namespace mnemosyne::cli
