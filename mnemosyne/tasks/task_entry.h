#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "mnemosyne/tasks/registry.h"
#include "mnemosyne/tasks/stacked/model.h"
#include "mnemosyne/tasks/task.h"

namespace mnemosyne::tasks {

/// What a network has to know of its data.
struct DataShape {
  int64_t vocabulary = 0;                       ///< Of a text: distinct characters or words.
  int64_t channels = 0, height = 0, width = 0;  ///< Of images.
  int64_t num_classes = 0;

  bool operator==(const DataShape&) const = default;
};

/// One test task: what the list says of it, its network for data of a shape, and how both become a
/// task with the data at a path.
struct TaskEntry {
  TaskInfo info;
  DataShape shape;  ///< Of the published data, for which the list counts parameters.
  std::function<std::shared_ptr<const Model>(const DataShape&)> model;
  std::shared_ptr<const Task> (*make)(const TaskEntry& entry, const std::string& path);

  std::shared_ptr<const Model> published_model() const { return model(shape); }
};

// 28 x 28 to 14 x 14: a quarter of the time for nearly the same problem.
inline constexpr int64_t kPool = 2, kSide = 14;
inline constexpr DataShape kDigits{.channels = 1, .height = 8, .width = 8, .num_classes = 10};
inline constexpr DataShape kMnist{
    .channels = 1, .height = kSide, .width = kSide, .num_classes = 10};
inline constexpr DataShape kCifar{.channels = 3, .height = 32, .width = 32, .num_classes = 10};
inline constexpr DataShape kShakespeare{.vocabulary = 65};

// What `make` is where several lists have the data; `path` holds the files in their format.

std::shared_ptr<const Task> classify_digits(const TaskEntry& entry, const std::string& path);
std::shared_ptr<const Task> classify_idx(const TaskEntry& entry, const std::string& path);
std::shared_ptr<const Task> reconstruct_idx(const TaskEntry& entry, const std::string& path);
std::shared_ptr<const Task> classify_cifar(const TaskEntry& entry, const std::string& path);

/// Any images: what load_images finds.
std::shared_ptr<const Task> classify_images(const TaskEntry& entry, const std::string& path);

/// A text by characters, whatever its alphabet: a file, or input.txt in a folder.
std::shared_ptr<const Task> predict_characters(const TaskEntry& entry, const std::string& path,
                                               int64_t context);

/// A text by its most frequent words: a file, or the two files of a folder as in load_words.
std::shared_ptr<const Task> predict_words(const TaskEntry& entry, const std::string& path,
                                          int64_t context, int64_t max_vocabulary);

}  // namespace mnemosyne::tasks
