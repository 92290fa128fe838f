#include "mnemosyne/tasks/image_tasks.h"

#include <utility>

#include "mnemosyne/io/record.h"
#include "mnemosyne/tasks/model_task.h"
#include "mnemosyne/tasks/stacked/layers.h"

namespace mnemosyne::tasks {
namespace {

/// What classification and reconstruction have in common: a model and its images.
class ImageTask : public ModelTask {
 public:
  ImageTask(std::string name, std::shared_ptr<const Model> model,
            std::shared_ptr<const ImageData> data, const ImageBatchOptions& options)
      : ModelTask(std::move(name), std::move(model)), data_(std::move(data)), options_(options) {}

  std::unique_ptr<BatchStream> train_stream(uint64_t seed) const override {
    return image_stream(data_, options_, seed);
  }

  std::vector<Batch> validation_batches() const override {
    return image_validation(*data_, options_);
  }

  std::map<std::string, std::string> metadata() const override {
    auto result = ModelTask::metadata();
    if (!data_->class_names.empty()) result["classes"] = io::to_json(data_->class_names);
    return result;
  }

  std::string data_fingerprint() const override { return data_->fingerprint; }

 private:
  std::shared_ptr<const ImageData> data_;
  ImageBatchOptions options_;
};

class Classification : public ImageTask {
 public:
  using ImageTask::ImageTask;

  at::Tensor loss(at::TensorList params, const Batch& batch) const override {
    return model().loss(params, batch[0], [&](const at::Tensor& logits) {
      return stacked_cross_entropy(logits, batch[1]);
    });
  }

  at::Tensor accuracy(at::TensorList params, const Batch& batch) const override {
    return stacked_accuracy(model().forward(params, batch[0]), batch[1]);
  }
};

class Reconstruction : public ImageTask {
 public:
  using ImageTask::ImageTask;

  at::Tensor loss(at::TensorList params, const Batch& batch) const override {
    return model().loss(params, batch[0], [&](const at::Tensor& outputs) {
      return stacked_squared_error(outputs, batch[0].flatten(1));
    });
  }
};

}  // namespace

std::shared_ptr<const Task> make_classification(std::string name,
                                                std::shared_ptr<const Model> model,
                                                std::shared_ptr<const ImageData> data,
                                                const ImageBatchOptions& options) {
  return std::make_shared<Classification>(std::move(name), std::move(model), std::move(data),
                                          options);
}

std::shared_ptr<const Task> make_reconstruction(std::string name,
                                                std::shared_ptr<const Model> model,
                                                std::shared_ptr<const ImageData> data,
                                                const ImageBatchOptions& options) {
  return std::make_shared<Reconstruction>(std::move(name), std::move(model), std::move(data),
                                          options);
}

}  // namespace mnemosyne::tasks
