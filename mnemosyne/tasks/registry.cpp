#include "mnemosyne/tasks/registry.h"

#include <filesystem>
#include <functional>

#include "mnemosyne/core/error.h"
#include "mnemosyne/tasks/digits.h"
#include "mnemosyne/tasks/image_tasks.h"
#include "mnemosyne/tasks/mlp.h"
#include "mnemosyne/tasks/vit.h"

namespace mnemosyne::tasks {
namespace {

using ModelFactory = std::function<std::shared_ptr<const Model>()>;
using TaskFactory = std::function<std::shared_ptr<const Task>(
    const TaskInfo& info, std::shared_ptr<const Model> model, const std::string& folder)>;

/// One test task: what the list says of it, its network, and how both become a task.
struct Entry {
  TaskInfo info;
  ModelFactory model;
  TaskFactory make;
};

TaskFactory classify_digits(int64_t train_size) {
  return
      [train_size](const TaskInfo& info, std::shared_ptr<const Model> model, const std::string&) {
        return make_classification(info.name, std::move(model), digits(),
                                   {.batch_size = info.default_batch, .train_size = train_size});
      };
}

const std::vector<Entry>& entries() {
  static const std::vector<Entry> list = {
      {{.name = "vit_digits",
        .description = "Vision Transformer, width 64, 3 layers, on 8x8 handwritten digits",
        .default_steps = 1000,
        .default_batch = 64},
       [] { return make_vit({.transformer = {.width = 64, .heads = 4, .layers = 3}}); },
       classify_digits(0)},
      {{.name = "mlp_digits_interpolate",
        .description = "MLP 64-128-128-10 that interpolates 1,000 handwritten digits",
        .default_steps = 2000,
        .default_batch = 64},
       [] { return make_mlp({.sizes = {64, 128, 128, 10}}); },
       classify_digits(1000)},
  };
  return list;
}

std::string data_folder(const TaskInfo& info, const std::string& data_dir) {
  if (info.data.empty()) return {};
  const std::string needs =
      "[task] " + info.name + " needs --data with a folder \"" + info.data + "\", expected ";
  if (data_dir.empty()) throw InputError(needs + "--data DIR, got none");
  const std::string folder = data_dir + "/" + info.data;
  if (!std::filesystem::is_directory(folder)) {
    throw InputError(needs + folder + ", got no such folder");
  }
  return folder;
}

}  // namespace

std::vector<TaskInfo> task_list() {
  std::vector<TaskInfo> list;
  for (const Entry& entry : entries()) {
    list.push_back(entry.info);
    list.back().num_params = entry.model()->params().numel();
  }
  return list;
}

std::shared_ptr<const Task> make_task(const std::string& name, const std::string& data_dir) {
  std::string known;
  for (const Entry& entry : entries()) {
    if (entry.info.name == name) {
      const std::string folder = data_folder(entry.info, data_dir);
      return entry.make(entry.info, entry.model(), folder);
    }
    known += (known.empty() ? "" : ", ") + entry.info.name;
  }
  throw InputError("[task] expected one of " + known + ", got \"" + name + "\"");
}

}  // namespace mnemosyne::tasks
