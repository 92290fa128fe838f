#include "mnemosyne/tasks/molecule_task.h"

#include <algorithm>
#include <utility>

#include "mnemosyne/core/random.h"
#include "mnemosyne/tasks/data/epochs.h"
#include "mnemosyne/tasks/model_task.h"

namespace mnemosyne::tasks {
namespace {

constexpr int64_t kValidationBatch = 250;

Batch make_batch(const MoleculeData& data, const std::vector<int64_t>& molecules) {
  return {data.molecules.atoms(molecules), targets(data, molecules).to(at::kFloat)};
}

class MoleculeStream : public BatchStream {
 public:
  MoleculeStream(std::shared_ptr<const MoleculeData> data, int64_t batch_size, uint64_t seed)
      : data_(std::move(data)),
        epochs_(static_cast<int64_t>(data_->train.size()), batch_size, mix_seeds(seed, 0)) {}

  Batch at(int64_t step) override {
    std::vector<int64_t> molecules = epochs_.at(step);
    for (int64_t& molecule : molecules) molecule = data_->train[molecule];
    return make_batch(*data_, molecules);
  }

 private:
  std::shared_ptr<const MoleculeData> data_;
  Epochs epochs_;
};

class MoleculeTask : public ModelTask {
 public:
  MoleculeTask(std::string name, std::shared_ptr<const Model> model,
               std::shared_ptr<const MoleculeData> data, const MoleculeTaskOptions& options)
      : ModelTask(std::move(name), std::move(model)), data_(std::move(data)), options_(options) {}

  std::unique_ptr<BatchStream> train_stream(uint64_t seed) const override {
    return std::make_unique<MoleculeStream>(data_, options_.batch_size, seed);
  }

  std::vector<Batch> validation_batches() const override {
    const auto count = std::min(options_.validation_size, static_cast<int64_t>(data_->test.size()));
    std::vector<Batch> batches;
    for (int64_t start = 0; start < count; start += kValidationBatch) {
      const int64_t end = std::min(start + kValidationBatch, count);
      batches.push_back(
          make_batch(*data_, {data_->test.begin() + start, data_->test.begin() + end}));
    }
    return batches;
  }

  at::Tensor loss(at::TensorList params, const Batch& batch) const override {
    return model().loss(params, batch[0], [&](const at::Tensor& outputs) {
      return outputs.squeeze(2).sub(batch[1]).abs().mean(1);
    });
  }

 private:
  std::shared_ptr<const MoleculeData> data_;
  MoleculeTaskOptions options_;
};

}  // namespace

std::shared_ptr<const Task> make_molecule_task(std::string name, std::shared_ptr<const Model> model,
                                               std::shared_ptr<const MoleculeData> data,
                                               const MoleculeTaskOptions& options) {
  return std::make_shared<MoleculeTask>(std::move(name), std::move(model), std::move(data),
                                        options);
}

}  // namespace mnemosyne::tasks
