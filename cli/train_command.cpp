#include <fmt/format.h>

#include <cmath>
#include <memory>
#include <optional>

#include "command.h"
#include "mnemosyne/core/device.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/io/file.h"
#include "mnemosyne/meta/training.h"
#include "mnemosyne/tasks/registry.h"
#include "progress.h"
#include "table.h"

namespace mnemosyne::cli {
namespace {

struct TrainOptions {
  std::string task;
  std::string optimizer = "mnemosyne";
  std::optional<double> lr;
  std::string schedule = "constant";
  bool tell_num_steps = false;
  std::optional<int64_t> steps;
  std::string data;
  std::string device = "cpu";
  meta::TrainingOptions training;
};

meta::Schedule parse_schedule(const std::string& text) {
  if (text == "constant") return meta::Schedule::kConstant;
  if (text == "cosine") return meta::Schedule::kCosine;
  throw InputError("[schedule] expected constant or cosine, got " + io::in_quotes(text));
}

// Those asked for, else those of the run that is continued, else the task's own.
int64_t num_steps(const TrainOptions& options) {
  if (options.steps) return *options.steps;
  if (options.training.resume) {
    if (const auto steps = meta::steps_of_run(options.training.folder)) return *steps;
  }
  return tasks::task_info(options.task).default_steps;
}

meta::TrainingOptions training_options(const TrainOptions& options) {
  meta::TrainingOptions training = options.training;
  if (training.resume && training.folder.empty()) {
    throw InputError("[resume] expected --out with the folder of the run, got none");
  }
  training.device = parse_device(options.device);
  training.task = tasks::make_task(options.task, options.data);
  training.optimizer = meta::parse_contender(options.optimizer, /*tune=*/false);
  if (training.optimizer.tuned) {
    throw InputError("[optimizer] expected an optimizer that is not to be tuned, got " +
                     io::in_quotes(options.optimizer) + "; see `mnemosyne compare`");
  }
  if (options.lr) training.optimizer.lr = *options.lr;
  if (options.schedule != "constant") {
    training.optimizer.schedule = parse_schedule(options.schedule);
  }
  if (options.tell_num_steps) training.optimizer.give_num_steps = true;
  training.num_steps = num_steps(options);
  return training;
}

std::string describe(const meta::TrainingReport& report) {
  std::string text = "loss " + number(report.smoothed_loss);
  if (report.validated && !std::isnan(report.validation_loss)) {
    text += ", validation " + number(report.validation_loss);
  }
  if (report.validated && !std::isnan(report.validation_accuracy)) {
    text += ", accuracy " + number(report.validation_accuracy);
  }
  return text;
}

int run_train(const TrainOptions& options, bool json) {
  const meta::TrainingOptions training = training_options(options);
  watch_interrupts();
  keep_freed_memory();
  Progress progress("steps");
  const meta::TrainingResult result =
      meta::train(training, {.on_step =
                                 [&](const meta::TrainingReport& report) {
                                   progress.update("loss " + number(report.smoothed_loss),
                                                   report.step, report.num_steps);
                                 },
                             .should_stop = interrupted});
  progress.finish();
  if (!result.finished) {
    throw std::runtime_error(fmt::format("[train] interrupted after step {} of {}{}",
                                         result.last.step, result.last.num_steps,
                                         training.folder.empty() ? "" : "; --resume continues"));
  }
  fmt::print("{} with {}, {} steps: {}\n", training.task->name(), training.optimizer.label,
             result.last.num_steps, describe(result.last));
  if (json) {
    fmt::print("{}\n", io::to_json({{"task", training.task->name()},
                                    {"optimizer", training.optimizer.label},
                                    {"lr", training.optimizer.lr},
                                    {"steps", result.last.num_steps},
                                    {"first_step", result.first_step},
                                    {"loss", result.last.smoothed_loss},
                                    {"validation_loss", result.last.validation_loss},
                                    {"validation_accuracy", result.last.validation_accuracy}}));
  }
  return 0;
}

}  // namespace

void add_train_command(CLI::App& app, Context& context) {
  const auto options = std::make_shared<TrainOptions>();
  meta::TrainingOptions& training = options->training;
  CLI::App* command = app.add_subcommand("train", "Train one network with one optimizer");
  command->add_option("--task", options->task, "What to train; see `mnemosyne tasks`")
      ->required()
      ->type_name("NAME");
  command->add_option("--optimizer", options->optimizer, "A rule or a weights file of one")
      ->type_name("NAME")
      ->capture_default_str();
  command->add_option("--lr", options->lr, "Learning rate; of learned rules a multiplier")
      ->check(real_number(false))
      ->type_name("X")
      ->default_str("the optimizer's own");
  command->add_option("--schedule", options->schedule, "constant, or cosine to zero")
      ->type_name("NAME")
      ->capture_default_str();
  command
      ->add_option("--weight-decay", training.weight_decay, "As AdamW's: times the size of a step")
      ->check(real_number(true))
      ->type_name("X")
      ->default_str("the optimizer's own");
  command->add_flag("--num-steps", options->tell_num_steps,
                    "Tell a learned rule how long the run will be");
  command->add_option("--steps", options->steps, "Length of the run; --resume may change it")
      ->check(whole_number(1))
      ->type_name("N")
      ->default_str("the task's or the resumed run's own");
  command->add_option("--seed", training.seed, "Of the start and the data order")
      ->check(whole_number(0))
      ->type_name("S")
      ->capture_default_str();
  add_data_option(*command, options->data);
  add_device_option(*command, options->device);
  command->add_option("--out", training.folder, "Folder for metrics, checkpoints and weights")
      ->type_name("DIR");
  command->add_flag("--resume", training.resume,
                    "Continue the run in --out; a finished one, too, with more --steps");
  command->add_option("--validate-every", training.validate_every, "Steps; 0: at the end only")
      ->check(whole_number(0))
      ->type_name("N")
      ->capture_default_str();
  command
      ->add_option("--checkpoint-seconds", training.checkpoint_seconds,
                   "Time between checkpoints; 0: by steps only")
      ->check(real_number(true))
      ->type_name("T")
      ->capture_default_str();
  command
      ->add_option("--checkpoint-every", training.checkpoint_every,
                   "Steps between checkpoints; 0: by time only")
      ->check(whole_number(0))
      ->type_name("N")
      ->capture_default_str();
  command->callback([options, &context] {
    context.run = [=, &context] { return run_train(*options, context.json); };
  });
}

}  // namespace mnemosyne::cli
