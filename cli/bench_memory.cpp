#include "bench_memory.h"

#include <fmt/format.h>

#include <cmath>
#include <functional>
#include <memory>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/io/record.h"
#include "mnemosyne/nn/theory/attention_error.h"
#include "mnemosyne/nn/theory/exact_capacity.h"
#include "mnemosyne/nn/theory/forgetting.h"
#include "mnemosyne/nn/theory/kernel_error.h"
#include "mnemosyne/nn/theory/pattern_recovery.h"
#include "table.h"

namespace mnemosyne::cli {
namespace {

struct MemoryBenchOptions {
  std::vector<std::string> parts{};
  std::vector<std::string> feature_maps{"trig", "hyp+", "favor+"};
  std::vector<std::string> readouts{"energy", "memory"};
  std::vector<int64_t> patterns{2, 4, 8, 16, 32, 64};
  std::vector<int64_t> flips{0, 2, 4, 6, 8, 10, 12};
  std::vector<int64_t> features{32, 128, 512, 2048, 8192};
  nn::RecoveryOptions recovery{};
};

using Records = std::vector<io::Record>;

/// A percentage where `number` would show many nines.
std::string percent(double share) { return fmt::format("{:.1f}", 100 * share); }

void kernel_table(const MemoryBenchOptions& options, Records& records) {
  Table table({"feature map", "|x|", "bias", "its error", "squared error", "its error", "formula",
               "orthogonal vectors"});
  for (const std::string& map : options.feature_maps) {
    for (const double length : {0.25, 0.5, 0.7, 1.0}) {
      nn::KernelErrorOptions one{.feature_map = map,
                                 .length = length,
                                 .draws = 2000,
                                 .independent_vectors = true,
                                 .seed = options.recovery.seed};
      const nn::KernelError independent = nn::measure_kernel_error(one);
      one.independent_vectors = false;
      const nn::KernelError orthogonal = nn::measure_kernel_error(one);
      table.add({map, number(length), number(independent.bias, 2),
                 number(independent.bias_deviation, 2), number(independent.squared, 3),
                 number(independent.squared_deviation, 2), number(independent.predicted, 3),
                 number(orthogonal.squared, 3)});
      records.push_back({{"experiment", std::string("kernel")},
                         {"feature_map", map},
                         {"length", length},
                         {"features", one.features},
                         {"bias", independent.bias},
                         {"bias_deviation", independent.bias_deviation},
                         {"squared", independent.squared},
                         {"squared_deviation", independent.squared_deviation},
                         {"predicted", independent.predicted},
                         {"orthogonal_squared", orthogonal.squared},
                         {"orthogonal_squared_deviation", orthogonal.squared_deviation}});
    }
  }
  fmt::print(
      "Random features: errors relative to exp(x.y), random directions of size 8, R = 16\n\n{}\n",
      table.text());
}

void guarantee_table(const MemoryBenchOptions& options, Records& records) {
  Table table(
      {"N", "M", "smallest distance", "flips under the bound", "restored, %", "twice the flips, %"},
      0);
  for (const int64_t spins : {32, 64, 128, 256}) {
    const nn::Guarantee found =
        nn::check_guarantee({.spins = spins, .patterns = spins, .seed = options.recovery.seed});
    table.add({number(static_cast<double>(spins)), number(static_cast<double>(spins)),
               number(found.distance, 3), number(found.flips, 3), percent(found.restored),
               percent(found.twice)});
    records.push_back({{"experiment", std::string("guarantee")},
                       {"spins", spins},
                       {"patterns", spins},
                       {"distance", found.distance},
                       {"flips", found.flips},
                       {"restored", found.restored},
                       {"restored_from_twice", found.twice}});
  }
  fmt::print("The exact energy under its bound, beta = 1: patterns restored\n\n{}\n", table.text());
}

void exact_capacity_table(const MemoryBenchOptions& options, Records& records) {
  Table table({"N", "flips", "patterns", "ln(patterns) / N", "slope"}, 0);
  double log_before = 0;
  int64_t spins_before = 0;
  for (const int64_t spins : {16, 24, 32, 40}) {
    const double capacity = nn::exact_capacity({.spins = spins,
                                                .flips = spins / 8,
                                                .most_patterns = int64_t{1} << 19,
                                                .seed = options.recovery.seed});
    const double log = std::log(capacity);
    const double slope = spins_before > 0
                             ? (log - log_before) / static_cast<double>(spins - spins_before)
                             : std::nan("");
    table.add({number(static_cast<double>(spins)), number(static_cast<double>(spins / 8)),
               number(std::round(capacity), 6), number(log / static_cast<double>(spins), 3),
               number(slope, 3)});
    records.push_back({{"experiment", std::string("exact_capacity")},
                       {"spins", spins},
                       {"flips", spins / 8},
                       {"capacity", capacity},
                       {"slope", slope}});
    log_before = log;
    spins_before = spins;
  }
  fmt::print("The exact energy, beta = 1: patterns until half of the starts fail\n\n{}\n",
             table.text());
}

void compact_capacity_table(const MemoryBenchOptions& options, Records& records) {
  Table table({"feature map", "read-out", "R", "numbers", "patterns"}, 2);
  for (const std::string& map : options.feature_maps) {
    for (const int64_t features : {512, 2048, 8192}) {
      nn::RecoveryOptions one = options.recovery;
      one.feature_map = map;
      one.features = features;
      one.readout = "energy";
      // Where neither the exact energy nor the distance is the limit.
      one.beta = 8.0 / static_cast<double>(one.spins);
      one.flips = one.spins / 16;
      const double capacity = nn::compact_capacity(one);
      table.add({map, one.readout, number(static_cast<double>(features)),
                 number(static_cast<double>(features)), number(capacity, 3)});
      records.push_back({{"experiment", std::string("compact_capacity")},
                         {"feature_map", map},
                         {"readout", one.readout},
                         {"features", features},
                         {"capacity", capacity}});
    }
  }
  fmt::print(
      "Memories of constant size: patterns up to which 95 % of the spins are right, N = {}, "
      "beta N = 8, {} flips\n\n{}\n",
      options.recovery.spins, options.recovery.spins / 16, table.text());
}

/// A table of recovery in which one number changes, by map and read-out.
class RecoverySweep {
 public:
  RecoverySweep(const MemoryBenchOptions& options, std::string name, Records& records)
      : options_(options), name_(std::move(name)), records_(records) {}

  /// `set` puts the value into the options of a row.
  void run(const std::vector<int64_t>& values,
           const std::function<void(nn::RecoveryOptions&, int64_t)>& set,
           nn::RecoveryOptions base) {
    for (const std::string& map : options_.feature_maps) {
      for (const std::string& readout : options_.readouts) {
        for (const int64_t value : values) {
          base.feature_map = map;
          base.readout = readout;
          set(base, value);
          add(base, value);
        }
      }
    }
  }

  void print(const std::string& title) const { fmt::print("{}\n\n{}\n", title, table_.text()); }

 private:
  void add(const nn::RecoveryOptions& one, int64_t value) {
    const nn::Recovery found = nn::recover_patterns(one);
    table_.add({one.feature_map, one.readout, number(one.gamma),
                number(static_cast<double>(value), 6), percent(found.bits),
                percent(found.predicted_bits), percent(found.exact_bits), percent(found.patterns),
                percent(found.exact_patterns),
                number(static_cast<double>(found.state_numbers), 8)});
    records_.push_back({{"experiment", name_},
                        {"feature_map", one.feature_map},
                        {"readout", one.readout},
                        {"spins", one.spins},
                        {"patterns", one.patterns},
                        {"flips", one.flips},
                        {"features", one.features},
                        {"gamma", one.gamma},
                        {"age", one.age},
                        {"bits", found.bits},
                        {"bits_deviation", found.bits_deviation},
                        {"predicted_bits", found.predicted_bits},
                        {"exact_bits", found.exact_bits},
                        {"whole", found.patterns},
                        {"exact_whole", found.exact_patterns},
                        {"state_numbers", found.state_numbers}});
  }

  const MemoryBenchOptions& options_;
  std::string name_;
  Records& records_;
  Table table_{{"feature map", "read-out", "gamma", name_, "right spins, %", "formula, %",
                "exact, %", "whole, %", "exact, %", "numbers"},
               2};
};

void recovery_tables(const MemoryBenchOptions& options, Records& records) {
  const nn::RecoveryOptions& base = options.recovery;
  for (const int64_t flips : options.flips) {  // before minutes go by
    nn::RecoveryOptions one = base;
    one.flips = flips;
    nn::validate(one);
  }
  const std::string memory = fmt::format("N = {}, beta N = {:.4g}", base.spins,
                                         base.beta * static_cast<double>(base.spins));
  RecoverySweep patterns(options, "patterns", records);
  patterns.run(options.patterns, [](auto& one, int64_t value) { one.patterns = value; }, base);
  patterns.print(fmt::format("Recovery against the number of patterns: {}, {} flips, R = {}",
                             memory, base.flips, base.features));
  RecoverySweep flips(options, "flips", records);
  flips.run(options.flips, [](auto& one, int64_t value) { one.flips = value; }, base);
  flips.print(fmt::format("Recovery against distance: {}, {} patterns, R = {}", memory,
                          base.patterns, base.features));
  RecoverySweep features(options, "features", records);
  features.run(options.features, [](auto& one, int64_t value) { one.features = value; }, base);
  features.print(fmt::format("Recovery against features: {}, {} patterns, {} flips", memory,
                             base.patterns, base.flips));
}

void forgetting_table(const MemoryBenchOptions& options, Records& records) {
  Table table({"gamma", "age 1", "age 10", "age 63", "gamma^63", "largest relative error",
               "numbers after 1 token", "after 64"},
              0);
  for (const double gamma : {1.0, 0.99, 0.9, 0.5}) {
    const nn::Forgetting found =
        nn::measure_forgetting({.gamma = gamma, .seed = options.recovery.seed});
    table.add({number(gamma), number(found.weights[1]), number(found.weights[10]),
               number(found.weights[63]), number(std::pow(gamma, 63)),
               number(found.largest_error, 2),
               number(static_cast<double>(found.numbers_after_first), 6),
               number(static_cast<double>(found.numbers_after_last), 6)});
    records.push_back({{"experiment", std::string("forgetting")},
                       {"gamma", gamma},
                       {"weights", found.weights},
                       {"largest_error", found.largest_error},
                       {"numbers_after_first", found.numbers_after_first},
                       {"numbers_after_last", found.numbers_after_last}});
  }
  fmt::print("Forgetting: what is left of a token, over the newest\n\n{}\n", table.text());

  nn::RecoveryOptions crowded = options.recovery;
  crowded.patterns = 64;
  MemoryBenchOptions trig = options;
  trig.feature_maps = {"trig"};
  trig.readouts = {"memory"};
  RecoverySweep ages(trig, "age", records);
  for (const double gamma : {1.0, 0.9, 0.8}) {
    crowded.gamma = gamma;
    ages.run({0, 2, 4, 8, 16, 32}, [](auto& one, int64_t value) { one.age = value; }, crowded);
  }
  ages.print(fmt::format("Recovery of 64 patterns by age: {} flips, R = {}", crowded.flips,
                         crowded.features));
}

void attention_table(const MemoryBenchOptions& options, Records& records) {
  Table table({"feature map", "R", "orthogonal vectors", "independent", "formula",
               "exponent, orthogonal", "independent"});
  const std::vector<int64_t> sizes{16, 64, 256, 1024, 4096};
  for (const std::string& map : options.feature_maps) {
    nn::AttentionError before[2];
    for (const int64_t features : sizes) {
      nn::AttentionErrorOptions one{
          .feature_map = map, .features = features, .seed = options.recovery.seed};
      const nn::AttentionError orthogonal = nn::measure_attention_error(one);
      one.independent_vectors = true;
      const nn::AttentionError independent = nn::measure_attention_error(one);
      const auto exponent = [&](double error, double coarser) {
        return features == sizes[0] ? std::nan("") : std::log(error / coarser) / std::log(4.0);
      };
      table.add({map, number(static_cast<double>(features)), number(orthogonal.relative, 3),
                 number(independent.relative, 3), number(independent.predicted, 3),
                 number(exponent(orthogonal.relative, before[0].relative), 2),
                 number(exponent(independent.relative, before[1].relative), 2)});
      records.push_back({{"experiment", std::string("attention")},
                         {"feature_map", map},
                         {"features", features},
                         {"orthogonal", orthogonal.relative},
                         {"independent", independent.relative},
                         {"predicted", independent.predicted},
                         {"state_numbers", independent.state_numbers}});
      before[0] = orthogonal;
      before[1] = independent;
    }
  }
  fmt::print(
      "Discounted compact memory against discounted softmax attention: relative error\n\n{}\n",
      table.text());
}

/// The parts, in the order in which they are printed.
const Choices<void (*)(const MemoryBenchOptions&, Records&)>& all_parts() {
  static const Choices<void (*)(const MemoryBenchOptions&, Records&)> parts = {
      {"kernel", kernel_table},
      {"guarantee", guarantee_table},
      {"exact-capacity", exact_capacity_table},
      {"recovery", recovery_tables},
      {"compact-capacity", compact_capacity_table},
      {"attention", attention_table},
      {"forgetting", forgetting_table},
  };
  return parts;
}

int run_bench_memory(const MemoryBenchOptions& options, bool json) {
  Records records;
  for (const std::string& name : options.parts) {
    one_of("parts", name, all_parts())(options, records);
  }
  if (json) fmt::print("{}\n", io::to_json(records));
  return 0;
}

}  // namespace

void add_bench_memory(CLI::App& bench, Context& context) {
  const auto options = std::make_shared<MemoryBenchOptions>();
  options->parts = names_of(all_parts());
  CLI::App* command = bench.add_subcommand(
      "memory", "What a memory of constant size keeps, beside what is known of it");
  const auto list = [&](const std::string& name, auto& values, const std::string& text,
                        const std::string& type) {
    return command->add_option(name, values, text)
        ->delimiter(',')
        ->type_name(type)
        ->capture_default_str();
  };
  list("--parts", options->parts, "Which tables", "NAME,...")
      ->check(CLI::IsMember(names_of(all_parts())));
  list("--feature-maps", options->feature_maps, "Feature maps", "NAME,...")
      ->check(CLI::IsMember({"trig", "hyp+", "favor+"}));
  list("--readouts", options->readouts,
       "energy: differences of an energy of R numbers; memory: a read of R (N + 1) numbers",
       "NAME,...")
      ->check(CLI::IsMember({"energy", "memory"}));
  list("--patterns", options->patterns, "Recovery against these numbers of patterns", "N,...")
      ->check(whole_number(1));
  list("--flips", options->flips, "Recovery against these numbers of turned spins", "N,...")
      ->check(whole_number(0));
  list("--features", options->features, "Recovery against these numbers of features", "N,...")
      ->check(whole_number(1));
  nn::RecoveryOptions& recovery = options->recovery;
  command->add_option("--spins", recovery.spins, "Spins N of a pattern that is recovered")
      ->check(whole_number(1))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--beta", recovery.beta, "Inverse temperature of recovery")
      ->check(real_number(/*zero_allowed=*/false))
      ->type_name("BETA")
      ->capture_default_str();
  command->add_option("--trials", recovery.trials, "Patterns and vectors drawn anew, recovery")
      ->check(whole_number(1))
      ->type_name("K")
      ->capture_default_str();
  command->add_option("--seed", recovery.seed, "Of all that is drawn")
      ->check(whole_number(0))
      ->type_name("SEED")
      ->capture_default_str();
  command->add_flag("--independent", recovery.independent_vectors,
                    "Recovery with independent random vectors, as the formulas assume");
  command->callback([options, &context] {
    context.run = [=, &context] { return run_bench_memory(*options, context.json); };
  });
}

}  // namespace mnemosyne::cli
