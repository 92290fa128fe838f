#include "mnemosyne/tasks/task_entry.h"

#include <filesystem>
#include <utility>

#include "mnemosyne/tasks/data/bytes.h"
#include "mnemosyne/tasks/data/datasets.h"
#include "mnemosyne/tasks/data/digits.h"
#include "mnemosyne/tasks/image_tasks.h"
#include "mnemosyne/tasks/language_task.h"

namespace mnemosyne::tasks {
namespace {

using DataPtr = std::shared_ptr<const ImageData>;
using TaskPtr = std::shared_ptr<const Task>;

DataShape shape_of(const ImageData& data) {
  const at::Tensor& images = data.train.images;
  return {.channels = images.size(1),
          .height = images.size(2),
          .width = images.size(3),
          .num_classes = data.num_classes};
}

std::string text_of(const DataShape& shape) {
  return std::to_string(shape.channels) + " x " + std::to_string(shape.height) + " x " +
         std::to_string(shape.width) + " pixels";
}

/// Images for a network that is made for one shape only.
DataPtr check_shape(const TaskEntry& entry, DataPtr data, const std::string& path) {
  if (shape_of(*data) != entry.shape) {
    refuse_data(path,
                "images of " + text_of(entry.shape) + " for " + entry.info.name +
                    " (conv_images and the like take all)",
                text_of(shape_of(*data)));
  }
  return data;
}

TaskPtr classify(const TaskEntry& entry, DataPtr data) {
  auto model = entry.model(shape_of(*data));
  return make_classification(entry.info.name, std::move(model), std::move(data),
                             {.batch_size = entry.info.default_batch});
}

TaskPtr predict(const TaskEntry& entry, std::shared_ptr<const TextData> text, int64_t context,
                std::string fingerprint) {
  auto model = entry.model({.vocabulary = text->vocabulary});
  return make_language_task(entry.info.name, std::move(model), std::move(text),
                            {.context = context,
                             .batch_size = entry.info.default_batch,
                             .fingerprint = std::move(fingerprint)});
}

}  // namespace

TaskPtr classify_digits(const TaskEntry& entry, const std::string&) {
  return classify(entry, digits());
}

TaskPtr classify_idx(const TaskEntry& entry, const std::string& path) {
  return classify(entry, check_shape(entry, load_idx(path, kPool), path));
}

TaskPtr reconstruct_idx(const TaskEntry& entry, const std::string& path) {
  return make_reconstruction(entry.info.name, entry.published_model(),
                             check_shape(entry, load_idx(path, kPool), path),
                             {.batch_size = entry.info.default_batch});
}

TaskPtr classify_cifar(const TaskEntry& entry, const std::string& path) {
  return classify(entry, load_cifar(path));
}

TaskPtr classify_images(const TaskEntry& entry, const std::string& path) {
  return classify(entry, load_images(path));
}

TaskPtr predict_characters(const TaskEntry& entry, const std::string& path, int64_t context) {
  const bool published = std::filesystem::is_directory(path);
  auto text = load_text(published ? path + "/input.txt" : path);
  // Results that were kept before other texts could be taken stay those of this one.
  constexpr const char* kTinyShakespeare = "2950818115";
  std::string fingerprint = text_fingerprint(*text);
  if (published && fingerprint == kTinyShakespeare) fingerprint.clear();
  return predict(entry, std::move(text), context, std::move(fingerprint));
}

TaskPtr predict_words(const TaskEntry& entry, const std::string& path, int64_t context,
                      int64_t max_vocabulary) {
  const bool published = std::filesystem::is_directory(path);
  const auto words = load_words(path, max_vocabulary);
  return predict(entry, std::shared_ptr<const TextData>(words, &words->text), context,
                 published ? "" : text_fingerprint(words->text));
}

}  // namespace mnemosyne::tasks
