#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <type_traits>
#include <variant>

#include "command.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/core/fields.h"
#include "mnemosyne/io/metrics.h"
#include "mnemosyne/meta/config.h"
#include "mnemosyne/meta/make_trainer.h"
#include "mnemosyne/optim/weights.h"
#include "processes.h"
#include "progress.h"
#include "table.h"

namespace mnemosyne::cli {
namespace {

struct MetaTrainOptions {
  meta::MetaConfig config;
  std::string out;
  bool resume = false;
  double process_timeout = meta::ProcessGroupOptions().timeout;
};

// "num_outer_steps" is --num-outer-steps on the command line and num_outer_steps in a file.
std::string option_names(std::string name) {
  const std::string in_files = "--" + name;
  for (char& c : name) c = c == '_' ? '-' : c;
  const std::string flag = "--" + name;
  return flag == in_files ? flag : flag + "," + in_files;
}

void add_option(CLI::App& command, const Field& field) {
  std::visit(
      [&](auto* value) {
        using Value = std::decay_t<decltype(*value)>;
        CLI::Option* option =
            command.add_option(option_names(field.name), *value, field.description);
        option->capture_default_str();
        if constexpr (std::is_same_v<Value, int64_t> || std::is_same_v<Value, uint64_t>) {
          option->check(whole_number(0))->type_name("N");
        } else if constexpr (std::is_same_v<Value, double>) {
          option->check(real_number(true))->type_name("X");
        } else if constexpr (!std::is_same_v<Value, std::string> && !std::is_same_v<Value, bool>) {
          option->delimiter(',');
        }
      },
      field.value);
}

// The trainer, continued from the folder's checkpoint where that is asked for and there is one. The
// folder is that of rank 0.
std::unique_ptr<meta::Trainer> open_trainer(const MetaTrainOptions& options, const Launch& launch,
                                            const std::shared_ptr<meta::ProcessGroup>& processes,
                                            std::optional<int64_t>& resumed_at) {
  if (processes->is_root()) make_folder(options.out);
  const std::string checkpoint = options.out + "/checkpoint.safetensors";
  auto trainer = meta::make_trainer(on_this_machine(options.config, launch), checkpoint, processes);
  const bool found = processes->any(processes->is_root() && std::filesystem::exists(checkpoint));
  if (!found) return trainer;
  if (!options.resume) {
    throw InputError("[out] expected --resume or a folder without a run, got " + options.out +
                     ", which holds one");
  }
  trainer->load(checkpoint);
  resumed_at = trainer->outer_step();
  return trainer;
}

meta::TrainerEvents events_for(io::MetricSink& metrics, Progress& progress) {
  meta::TrainerEvents events;
  events.on_step = [&](const meta::OuterReport& report) {
    progress.update(
        fmt::format("meta-loss {}, horizon {}", number(report.meta_loss), report.horizon),
        report.step, report.num_outer_steps);
    metrics.write(report.step, {{"meta_loss", report.meta_loss},
                                {"gradient_norm", report.gradient_norm},
                                {"learning_rate", report.learning_rate},
                                {"horizon", static_cast<double>(report.horizon)},
                                {"skipped", static_cast<double>(report.skipped)}});
    // Before the checkpoint of this step is written.
    metrics.flush();
  };
  events.on_validation = [&](const meta::ValidationReport& report) {
    metrics.write(report.step, {{"validation_score", report.candidate.score},
                                {"validation_mean", report.candidate.mean},
                                {"validation_worst", report.candidate.worst},
                                {"best_score", report.best.score}});
    metrics.flush();
  };
  events.should_stop = interrupted;
  return events;
}

// With everything that is written and shown, which is rank 0's.
void run_with_reports(meta::Trainer& trainer, const std::string& out,
                      std::optional<int64_t> resumed_at) {
  io::MetricSink metrics = io::MetricSink::open(out, resumed_at);
  Progress progress("outer steps");
  trainer.run(events_for(metrics, progress));
  progress.finish();
}

void save_weights(const meta::Trainer& trainer, const MetaTrainOptions& options, bool json) {
  const std::string path = options.out + "/" + options.config.rule + ".safetensors";
  const auto rule = meta::make_finished_rule(options.config, trainer.best_weights());
  optim::save_rule(path, *rule, {{"config", meta::to_text(options.config)}});
  fmt::print("{} outer steps: weights in {}, identity {}\n", trainer.outer_step(), path,
             optim::weights_hash(*rule));
  if (json) {
    fmt::print("{}\n", io::to_json({{"weights", path},
                                    {"outer_steps", trainer.outer_step()},
                                    {"identity", optim::weights_hash(*rule)}}));
  }
}

int run_meta_train(const MetaTrainOptions& options, Context& context) {
  Launch launch = read_launch();
  launch.group.timeout = options.process_timeout;
  if (launch.group.rank > 0) context.speaker = fmt::format("rank {}: ", launch.group.rank);
  options.config.validate();
  const auto processes = meta::join_process_group(launch.group);
  std::optional<int64_t> resumed_at;
  const auto trainer = open_trainer(options, launch, processes, resumed_at);
  watch_interrupts();
  keep_freed_memory();
  if (processes->is_root()) {
    run_with_reports(*trainer, options.out, resumed_at);
  } else {
    trainer->run({.should_stop = interrupted});
  }
  const bool stopped = processes->any(interrupted());
  if (processes->is_root() && !stopped) save_weights(*trainer, options, context.json);
  processes->finish();
  if (stopped) {
    throw std::runtime_error(
        fmt::format("[meta-train] interrupted after outer step {}; --resume "
                    "continues",
                    trainer->outer_step()));
  }
  return 0;
}

}  // namespace

void add_meta_train_command(CLI::App& app, Context& context) {
  const auto options = std::make_shared<MetaTrainOptions>();
  CLI::App* command = app.add_subcommand(
      "meta-train", "Make the weights of a learned optimizer from --config FILE");
  for (const Field& field : fields_of(options->config)) add_option(*command, field);
  command->add_option("--out", options->out, "Folder for weights, checkpoints and metrics")
      ->required()
      ->type_name("DIR");
  command->add_flag("--resume", options->resume, "Continue the meta-training in --out");
  command
      ->add_option(
          "--process-timeout", options->process_timeout,
          "Of several processes (torchrun): seconds without a sign of life after which one "
          "is lost")
      ->check(real_number(false))
      ->type_name("SECONDS")
      ->capture_default_str();
  command->callback([options, &context] {
    context.run = [=, &context] { return run_meta_train(*options, context); };
  });
}

}  // namespace mnemosyne::cli
