#pragma once

#include <memory>
#include <string>

#include "mnemosyne/core/random.h"
#include "mnemosyne/tasks/task.h"

namespace mnemosyne::tasks {

/// Draws of the families (families.h) whose data are functions of numbers.
using TaskPtr = std::shared_ptr<const Task>;

TaskPtr sample_quadratic(std::string name, Random& random);
TaskPtr sample_function(std::string name, Random& random);
TaskPtr sample_table(std::string name, Random& random);
TaskPtr sample_teacher(std::string name, Random& random);

}  // namespace mnemosyne::tasks
