#include "bench_attention.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <limits>
#include <memory>

#include "mnemosyne/io/record.h"
#include "mnemosyne/ops/benchmark_attention.h"
#include "table.h"

namespace mnemosyne::cli {
namespace {

struct AttentionBenchOptions {
  ops::AttentionBenchmarkOptions attention{};
  bool bidirectional = false;
  int64_t threads = 1;
};

constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();

/// NaN, a dash in the table, for what was too long to be timed.
double measured(double value) { return value > 0 ? value : kMissing; }

void add_row(Table& table, std::vector<io::Record>& records, int64_t length,
             const std::string& name, const ops::AttentionCost& cost,
             const ops::AttentionCost& softmax, double forward_share, double training_share) {
  const double forward = measured(cost.forward_seconds);
  const double training = measured(cost.training_seconds);
  const double softmax_forward = measured(softmax.forward_seconds);
  const double softmax_training = measured(softmax.training_seconds);
  table.add({name, fmt::format("{}", length), number(1e3 * forward, 3), number(1e3 * training, 3),
             number(forward / softmax_forward, 3), number(training / softmax_training, 3),
             number(forward_share, 2), number(training_share, 2),
             number(measured(static_cast<double>(cost.training_bytes)) / 1048576.0, 3)});
  records.push_back({{"attention", name},
                     {"length", length},
                     {"forward_seconds", forward},
                     {"training_seconds", training},
                     {"forward_over_softmax", forward / softmax_forward},
                     {"training_over_softmax", training / softmax_training},
                     {"forward_share", forward_share},
                     {"training_share", training_share},
                     {"forward_bytes", cost.forward_bytes},
                     {"training_bytes", cost.training_bytes}});
}

int run_bench_attention(AttentionBenchOptions options, bool json) {
  at::set_num_threads(static_cast<int>(options.threads));
  options.attention.causal = !options.bidirectional;
  const ops::AttentionBenchmark result = ops::benchmark_attention(options.attention);
  Table table({"attention", "L", "forward ms", "+ backward ms", "over softmax", "+ backward",
               "share", "+ backward", "peak MiB"});
  std::vector<io::Record> records;
  for (const ops::AttentionBenchmarkRow& row : result.rows) {
    add_row(table, records, row.length, "softmax", row.softmax, row.softmax, kMissing, kMissing);
    add_row(table, records, row.length, "softmax, learned bias", row.softmax_with_bias, row.softmax,
            kMissing, kMissing);
    const std::vector<int64_t>& ranks = options.attention.ranks;
    for (size_t i = 0; i < row.linear.size(); ++i) {
      const int64_t features = options.attention.features[i / ranks.size()];
      const int64_t rank = ranks[i % ranks.size()];
      std::string name = fmt::format("linear, {} features", features);
      if (rank > 0) {
        name += fmt::format(", rank {}{}", rank, options.attention.fading ? " fading" : "");
      }
      add_row(table, records, row.length, name, row.linear[i], row.softmax, row.forward_share[i],
              row.training_share[i]);
    }
  }
  fmt::print("{} attention, {} heads of {}, {} thread(s); best product {:.3g} GFLOP/s\n\n{}",
             options.bidirectional ? "Bidirectional" : "Causal", options.attention.heads,
             options.attention.depth, options.threads, 1e-9 * result.multiply_rate, table.text());
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
  number_option("--threads", options->threads, "Threads");
  numbers("--rank", options->attention.ranks, "Ranks of position factors; 0: none", 0);
  command->add_flag("--fading", options->attention.fading, "Factors fade, as damped positions do");
  command->add_flag("--bidirectional", options->bidirectional, "Not causal");
  command->callback([options, &context] {
    context.run = [=, &context] { return run_bench_attention(*options, context.json); };
  });
}

}  // namespace mnemosyne::cli
