#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <memory>

#include "command.h"
#include "mnemosyne/core/device.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/io/record.h"
#include "mnemosyne/io/safetensors.h"
#include "mnemosyne/tasks/registry.h"
#include "shape_text.h"
#include "table.h"

namespace mnemosyne::cli {
namespace {

struct EvaluateOptions {
  std::string task;
  std::string weights;
  std::string data;
  std::string device = "cpu";
};

// Outputs that stand for other characters, words or classes would be wrong without a sign of it.
void check_meaning(const tasks::Task& task, const io::TensorFile& file, const std::string& path) {
  const auto own = task.metadata();
  for (const char* key : {"vocabulary", "classes"}) {
    const auto expected = own.find(key), found = file.metadata.find(key);
    const bool both = expected != own.end() && found != file.metadata.end();
    if (both && expected->second != found->second) {
      throw InputError(
          fmt::format("[weights] {}: expected the {} of the task's data, got others", path, key));
    }
  }
}

// The file's tensors in the order of the task's parameters, each with a leading dimension of one
// member.
std::vector<at::Tensor> load_params(const tasks::Task& task, const std::string& path) {
  const io::TensorFile file = io::read_safetensors(path);
  check_meaning(task, file, path);
  const NamedTensors& tensors = file.tensors;
  const std::vector<std::string> names = task.param_names();
  const std::vector<at::Tensor> like = task.init(0);
  std::vector<at::Tensor> params;
  for (size_t i = 0; i < names.size(); ++i) {
    const at::Tensor& tensor = find(tensors, names[i]);
    if (tensor.sizes() != like[i].sizes() || tensor.scalar_type() != like[i].scalar_type()) {
      throw InputError(fmt::format("[weights] {}: expected {} of shape {} for task {}, got {}",
                                   path, names[i], shape_text(like[i]), task.name(),
                                   shape_text(tensor)));
    }
    params.push_back(tensor.unsqueeze(0));
  }
  return params;
}

// Mean of a figure over the held-out batches; NaN where the task has none.
template <typename Figure>
double mean_over_batches(const tasks::Task& task, at::Device device, const Figure& figure) {
  const auto batches = task.validation_batches();
  double sum = 0;
  for (const tasks::Batch& batch : batches) {
    const at::Tensor value = figure(tasks::on_device(batch, device));
    if (!value.defined()) return std::numeric_limits<double>::quiet_NaN();
    sum += value.item<double>();
  }
  return batches.empty() ? std::numeric_limits<double>::quiet_NaN()
                         : sum / static_cast<double>(batches.size());
}

int run_evaluate(const EvaluateOptions& options, bool json) {
  const at::NoGradGuard no_grad;
  const at::Device device = parse_device(options.device);
  const auto task = tasks::make_task(options.task, options.data);
  const std::vector<at::Tensor> params =
      tasks::on_device(load_params(*task, options.weights), device);
  const double loss = mean_over_batches(
      *task, device, [&](const tasks::Batch& batch) { return task->loss(params, batch); });
  const double accuracy = mean_over_batches(
      *task, device, [&](const tasks::Batch& batch) { return task->accuracy(params, batch); });
  fmt::print("{}: validation loss {}, accuracy {}\n", task->name(), number(loss), number(accuracy));
  if (json) {
    fmt::print("{}\n", io::to_json({{"task", task->name()},
                                    {"validation_loss", loss},
                                    {"validation_accuracy", accuracy}}));
  }
  return 0;
}

}  // namespace

void add_evaluate_command(CLI::App& app, Context& context) {
  const auto options = std::make_shared<EvaluateOptions>();
  CLI::App* command =
      app.add_subcommand("evaluate", "Held-out loss and accuracy of a network from `train`");
  command->add_option("--task", options->task, "What it was trained on; see `mnemosyne tasks`")
      ->required()
      ->type_name("NAME");
  command->add_option("--weights", options->weights, "weights.safetensors in the --out of `train`")
      ->required()
      ->type_name("FILE");
  add_data_option(*command, options->data);
  add_device_option(*command, options->device);
  command->callback([options, &context] {
    context.run = [=, &context] { return run_evaluate(*options, context.json); };
  });
}

}  // namespace mnemosyne::cli
