#include "mnemosyne/tasks/task_entry.h"

#include <utility>

#include "mnemosyne/tasks/bytes.h"
#include "mnemosyne/tasks/datasets.h"
#include "mnemosyne/tasks/digits.h"
#include "mnemosyne/tasks/image_tasks.h"
#include "mnemosyne/tasks/language_task.h"

namespace mnemosyne::tasks {

using ModelPtr = std::shared_ptr<const Model>;
using TaskPtr = std::shared_ptr<const Task>;

TaskPtr classify_digits(const TaskInfo& info, ModelPtr model, const std::string&) {
  return make_classification(info.name, std::move(model), digits(),
                             {.batch_size = info.default_batch});
}

TaskPtr classify_idx(const TaskInfo& info, ModelPtr model, const std::string& folder) {
  return make_classification(info.name, std::move(model), load_idx(folder, kPool),
                             {.batch_size = info.default_batch});
}

TaskPtr classify_cifar(const TaskInfo& info, ModelPtr model, const std::string& folder) {
  return make_classification(info.name, std::move(model), load_cifar(folder),
                             {.batch_size = info.default_batch});
}

TaskPtr predict_shakespeare(const TaskInfo& info, ModelPtr model, const std::string& folder,
                            int64_t context) {
  const std::string path = folder + "/input.txt";
  auto text = load_text(path);
  if (text->vocabulary != kShakespeareVocabulary) {
    refuse_data(path, std::to_string(kShakespeareVocabulary) + " distinct characters",
                std::to_string(text->vocabulary));
  }
  return make_language_task(info.name, std::move(model), std::move(text),
                            {.context = context, .batch_size = info.default_batch});
}

}  // namespace mnemosyne::tasks
