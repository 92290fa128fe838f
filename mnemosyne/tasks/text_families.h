#pragma once

#include <memory>
#include <string>

#include "mnemosyne/core/random.h"
#include "mnemosyne/tasks/task.h"

namespace mnemosyne::tasks {

/// Draws of the families (families.h) whose data are synthetic languages.
using TaskPtr = std::shared_ptr<const Task>;

TaskPtr sample_lm(std::string name, Random& random);
TaskPtr sample_tied_lm(std::string name, Random& random);
TaskPtr sample_rnn_lm(std::string name, Random& random);

}  // namespace mnemosyne::tasks
