#include "mnemosyne/tasks/row_task.h"

#include <utility>

#include "mnemosyne/tasks/model_task.h"
#include "mnemosyne/tasks/stacked/layers.h"

namespace mnemosyne::tasks {
namespace {

class RowTask : public ModelTask {
 public:
  RowTask(std::string name, std::shared_ptr<const Model> model, std::shared_ptr<const RowData> data,
          int64_t batch_size)
      : ModelTask(std::move(name), std::move(model)),
        data_(std::move(data)),
        batch_size_(batch_size) {}

  std::unique_ptr<BatchStream> train_stream(uint64_t seed) const override {
    return row_stream(data_->train, batch_size_, seed);
  }

  std::vector<Batch> validation_batches() const override {
    return {{data_->test.inputs, data_->test.targets}};
  }

  at::Tensor loss(at::TensorList params, const Batch& batch) const override {
    return model().loss(params, batch[0], [&](const at::Tensor& outputs) {
      return data_->num_classes > 0 ? stacked_cross_entropy(outputs, batch[1])
                                    : stacked_squared_error(outputs, batch[1]);
    });
  }

  at::Tensor accuracy(at::TensorList params, const Batch& batch) const override {
    if (data_->num_classes == 0) return {};
    return stacked_accuracy(model().forward(params, batch[0]), batch[1]);
  }

 private:
  std::shared_ptr<const RowData> data_;
  int64_t batch_size_;
};

}  // namespace

std::shared_ptr<const Task> make_row_task(std::string name, std::shared_ptr<const Model> model,
                                          std::shared_ptr<const RowData> data, int64_t batch_size) {
  return std::make_shared<RowTask>(std::move(name), std::move(model), std::move(data), batch_size);
}

}  // namespace mnemosyne::tasks
