#pragma once

#include <memory>
#include <string>

#include "mnemosyne/tasks/data/text_data.h"
#include "mnemosyne/tasks/stacked/model.h"
#include "mnemosyne/tasks/task.h"

namespace mnemosyne::tasks {

struct LanguageTaskOptions {
  int64_t context = 32;  ///< Tokens (characters or words) that are predicted at once.
  int64_t batch_size = 16;
  int64_t validation_windows = 128;  ///< At most so many, evenly spread over the validation text.
  std::string fingerprint = {};      ///< Task::data_fingerprint.
};

/// Predicting the next token: cross entropy in nats of the model's outputs [P,B*T,vocabulary].
/// Batches are {inputs [B,T], targets [B*T]}, int64; every epoch cuts the text into windows at
/// another offset and sees each of them once. Files of its
/// weights name the characters or words in "vocabulary". InputError when the text is too short for
/// two windows.
std::shared_ptr<const Task> make_language_task(std::string name, std::shared_ptr<const Model> model,
                                               std::shared_ptr<const TextData> data,
                                               const LanguageTaskOptions& options = {});

}  // namespace mnemosyne::tasks
