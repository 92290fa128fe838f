#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mnemosyne/tasks/task.h"

namespace mnemosyne::tasks {

/// What a user wants to know of a task before training it.
struct TaskInfo {
  std::string name;
  std::string description;  ///< One line: network and data.
  int64_t num_params = 0;
  int64_t default_steps = 1000;
  int64_t default_batch = 64;
  std::string data = {};  ///< Folder below the data directory; empty when nothing is needed.
  /// What the attention is, "linear-flt", where a suffix of the name may choose another.
  std::string attention = {};
};

/// The test tasks: no meta-training ever sees one of them (what it sees is in families.h).
std::vector<TaskInfo> task_list();

/// What the list says of `name`, which may have a suffix as below. InputError as below.
TaskInfo task_info(const std::string& name);

/// The task called `name`, with its data from `data_dir`, which holds the folders mnist,
/// fashion_mnist, cifar10, tinyshakespeare, wikitext2, qm7_xyz and rmd17_aspirin with the files as
/// they are published (datasets.h). A suffix ":KIND-POSITION" chooses the attention of the tasks
/// that have one to choose, as in nn::AttentionOptions, for comparing them. InputError for an
/// unknown name or suffix, a missing folder, or data that are not what they should be.
///
///     auto task = tasks::make_task("vit_digits", "");
///     auto baseline = tasks::make_task("flt_char_lm:softmax-rope", "data");
std::shared_ptr<const Task> make_task(const std::string& name, const std::string& data_dir);

}  // namespace mnemosyne::tasks
