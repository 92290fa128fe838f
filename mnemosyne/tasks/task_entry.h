#pragma once

#include <functional>
#include <memory>
#include <string>

#include "mnemosyne/tasks/model.h"
#include "mnemosyne/tasks/registry.h"
#include "mnemosyne/tasks/task.h"

namespace mnemosyne::tasks {

/// One test task: what the list says of it, its network, and how both become a task with the data
/// of a folder.
struct TaskEntry {
  TaskInfo info;
  std::function<std::shared_ptr<const Model>()> model;
  std::shared_ptr<const Task> (*make)(const TaskInfo& info, std::shared_ptr<const Model> model,
                                      const std::string& folder);
};

}  // namespace mnemosyne::tasks
