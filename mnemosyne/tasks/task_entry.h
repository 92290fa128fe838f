#pragma once

#include <cstdint>
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

// 28 x 28 to 14 x 14: a quarter of the time for nearly the same problem.
inline constexpr int64_t kPool = 2, kSide = 14;
inline constexpr int64_t kShakespeareVocabulary = 65;

// What `make` is where several lists have the data; `folder` holds the files in their format.

std::shared_ptr<const Task> classify_digits(const TaskInfo& info,
                                            std::shared_ptr<const Model> model,
                                            const std::string& folder);
std::shared_ptr<const Task> classify_idx(const TaskInfo& info, std::shared_ptr<const Model> model,
                                         const std::string& folder);
std::shared_ptr<const Task> classify_cifar(const TaskInfo& info, std::shared_ptr<const Model> model,
                                           const std::string& folder);

/// Tiny Shakespeare by characters; InputError for a text with another number of distinct ones.
std::shared_ptr<const Task> predict_shakespeare(const TaskInfo& info,
                                                std::shared_ptr<const Model> model,
                                                const std::string& folder, int64_t context);

}  // namespace mnemosyne::tasks
