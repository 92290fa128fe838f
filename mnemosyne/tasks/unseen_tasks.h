#pragma once

#include <vector>

#include "mnemosyne/tasks/task_entry.h"

namespace mnemosyne::tasks {

/// The tasks that shipped weights are tested on (suites.h): architectures and data of which
/// neither a family (families.h) nor a validation task has both.
std::vector<TaskEntry> unseen_tasks();

}  // namespace mnemosyne::tasks
