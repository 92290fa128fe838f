#pragma once

#include <string>
#include <vector>

#include "mnemosyne/tasks/task_entry.h"

namespace mnemosyne::tasks {

/// Test tasks on the models of nn/ (CausalLM, ViT, PointEncoder) with FourierLearner attention, for
/// comparing attentions with one another: text, images, molecules.
std::vector<TaskEntry> flt_tasks();

/// The task `name` of that list with another attention, "KIND-POSITION" as in nn::AttentionOptions:
/// "softmax-rope", "linear-none". InputError that lists what the task can have.
TaskEntry flt_task(const std::string& name, const std::string& attention);

/// The attentions that the task can have, "linear-none" and so on.
std::vector<std::string> flt_attentions(const std::string& name);

}  // namespace mnemosyne::tasks
