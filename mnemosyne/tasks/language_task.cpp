#include "mnemosyne/tasks/language_task.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>

#include "mnemosyne/core/error.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/io/record.h"
#include "mnemosyne/tasks/data/epochs.h"
#include "mnemosyne/tasks/model_task.h"
#include "mnemosyne/tasks/stacked/layers.h"

namespace mnemosyne::tasks {
namespace {

constexpr int64_t kValidationBatch = 32;

template <typename T>
void copy_windows(const T* text, const std::vector<int64_t>& starts, int64_t size, int64_t* row) {
  for (const int64_t start : starts) row = std::copy(text + start, text + start + size, row);
}

/// {inputs [B,T], targets [B*T]} of the windows that start at these places.
Batch windows(const at::Tensor& text, const std::vector<int64_t>& starts, int64_t context) {
  const auto count = static_cast<int64_t>(starts.size());
  const at::Tensor table = at::empty({count, context + 1}, at::kLong);
  auto* rows = table.mutable_data_ptr<int64_t>();
  if (text.scalar_type() == at::kByte) {
    copy_windows(text.const_data_ptr<uint8_t>(), starts, context + 1, rows);
  } else {
    copy_windows(text.const_data_ptr<int32_t>(), starts, context + 1, rows);
  }
  return {table.narrow(1, 0, context), table.narrow(1, 1, context).flatten()};
}

/// How many windows fit behind any offset below `context`, with the token after the last one.
int64_t count_windows(const at::Tensor& text, int64_t context) {
  return (text.size(0) - 1) / context - 1;
}

class TextStream : public BatchStream {
 public:
  TextStream(std::shared_ptr<const TextData> data, const LanguageTaskOptions& options,
             uint64_t seed)
      : data_(std::move(data)),
        options_(options),
        offset_seed_(mix_seeds(seed, 1)),
        count_(count_windows(data_->train, options.context)),
        epochs_(count_, options.batch_size, mix_seeds(seed, 0)) {}

  Batch at(int64_t step) override {
    std::vector<int64_t> starts = epochs_.at(step);
    int64_t position = step * options_.batch_size;
    for (int64_t& start : starts) {
      Random offset(mix_seeds(offset_seed_, position++ / count_));
      start = start * options_.context + offset.below(options_.context);
    }
    return windows(data_->train, starts, options_.context);
  }

 private:
  std::shared_ptr<const TextData> data_;
  LanguageTaskOptions options_;
  uint64_t offset_seed_;
  int64_t count_;
  Epochs epochs_;
};

class LanguageTask : public ModelTask {
 public:
  LanguageTask(std::string name, std::shared_ptr<const Model> model,
               std::shared_ptr<const TextData> data, const LanguageTaskOptions& options)
      : ModelTask(std::move(name), std::move(model)), data_(std::move(data)), options_(options) {}

  std::unique_ptr<BatchStream> train_stream(uint64_t seed) const override {
    return std::make_unique<TextStream>(data_, options_, seed);
  }

  std::vector<Batch> validation_batches() const override {
    const at::Tensor& text = data_->validation;
    const int64_t available = (text.size(0) - 1) / options_.context;
    const int64_t count = std::min(available, options_.validation_windows);
    std::vector<Batch> batches;
    for (int64_t first = 0; first < count; first += kValidationBatch) {
      std::vector<int64_t> starts;
      for (int64_t i = first; i < std::min(first + kValidationBatch, count); ++i) {
        starts.push_back(i * available / count * options_.context);
      }
      batches.push_back(windows(text, starts, options_.context));
    }
    return batches;
  }

  std::map<std::string, std::string> metadata() const override {
    auto result = ModelTask::metadata();
    if (!data_->symbols.empty()) result["vocabulary"] = io::to_json(data_->symbols);
    return result;
  }

  std::string data_fingerprint() const override { return options_.fingerprint; }

  at::Tensor loss(at::TensorList params, const Batch& batch) const override {
    return model().loss(params, batch[0], [&](const at::Tensor& logits) {
      return stacked_cross_entropy(logits, batch[1]);
    });
  }

  at::Tensor accuracy(at::TensorList params, const Batch& batch) const override {
    return stacked_accuracy(model().forward(params, batch[0]), batch[1]);
  }

 private:
  std::shared_ptr<const TextData> data_;
  LanguageTaskOptions options_;
};

}  // namespace

std::shared_ptr<const Task> make_language_task(std::string name, std::shared_ptr<const Model> model,
                                               std::shared_ptr<const TextData> data,
                                               const LanguageTaskOptions& options) {
  const int64_t train = data->train.size(0), validation = data->validation.size(0);
  if (options.context < 1 || count_windows(data->train, options.context) < 1 ||
      validation <= options.context) {
    const auto tokens = [](int64_t first, int64_t second) {
      return std::to_string(first) + " characters or words for training and " +
             std::to_string(second) + " for validation";
    };
    throw InputError("[language_task] expected a text for a context of " +
                     std::to_string(options.context) + ", at least " +
                     tokens(2 * options.context + 1, options.context + 1) + ", got " +
                     tokens(train, validation));
  }
  return std::make_shared<LanguageTask>(std::move(name), std::move(model), std::move(data),
                                        options);
}

}  // namespace mnemosyne::tasks
