#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mnemosyne/tasks/task.h"

namespace mnemosyne::tasks {

/// What a task on texts takes beside its published one.
inline constexpr const char* kTextFile = "a text file";

/// What a user wants to know of a task before training it.
struct TaskInfo {
  std::string name;
  std::string description;  ///< One line: network and data.
  int64_t num_params = 0;
  int64_t default_steps = 1000;
  int64_t default_batch = 64;
  std::string data = {};  ///< Folder below the data directory; empty when none is needed.
  /// What of a user's own the data directory itself may be instead: "a text file"; may be empty.
  std::string own_data = {};
  /// What the attention is, "linear-flt", where a suffix of the name may choose another.
  std::string attention = {};
};

/// The test tasks: no meta-training ever sees one of them (what it sees is in families.h).
std::vector<TaskInfo> task_list();

/// What the list says of `name`, which may have a suffix as below. InputError as below.
TaskInfo task_info(const std::string& name);

/// The task called `name`, with its data from `data`. That is a folder with the published sets in
/// folders mnist, fashion_mnist, cifar10, tinyshakespeare, wikitext2, trec, esol, qm7_xyz and
/// rmd17_aspirin with the files as they are published (datasets.h); for tasks on texts it may be a
/// text file, and for those on any images it is the folder with them. A suffix ":KIND-POSITION"
/// chooses the attention of the tasks that have one to choose, as in nn::AttentionOptions, for
/// comparing them. InputError for an unknown name or suffix, missing data, or data that are not
/// what they should be.
///
///     auto task = tasks::make_task("vit_digits", "");
///     auto baseline = tasks::make_task("flt_char_lm:softmax-rope", "data");
///     auto own = tasks::make_task("char_lm", "novel.txt");
std::shared_ptr<const Task> make_task(const std::string& name, const std::string& data);

}  // namespace mnemosyne::tasks
