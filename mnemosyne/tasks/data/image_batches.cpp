#include "mnemosyne/tasks/data/image_batches.h"

#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <utility>

#include "mnemosyne/core/random.h"
#include "mnemosyne/tasks/data/epochs.h"

namespace mnemosyne::tasks {
namespace {

constexpr int64_t kValidationBatch = 500;

at::Tensor map_labels(const at::Tensor& labels, const std::vector<int64_t>& map) {
  return map.empty() ? labels : at::tensor(map, at::kLong).index_select(0, labels);
}

int64_t num_train(const ImageData& data, const ImageBatchOptions& options) {
  return options.train_size > 0 ? std::min(options.train_size, data.train.size())
                                : data.train.size();
}

class ImageStream : public BatchStream {
 public:
  ImageStream(std::shared_ptr<const ImageData> data, const ImageBatchOptions& options,
              uint64_t seed)
      : data_(std::move(data)),
        options_(options),
        noise_seed_(mix_seeds(seed, 1)),
        epochs_(num_train(*data_, options), options.batch_size, mix_seeds(seed, 0)) {}

  Batch at(int64_t step) override {
    const at::Tensor index = at::tensor(epochs_.at(step), at::kLong);
    at::Tensor images = data_->normalize(data_->train.images.index_select(0, index));
    at::Tensor labels = map_labels(data_->train.labels.index_select(0, index), options_.label_map);
    if (options_.input_noise > 0.0 || options_.label_noise > 0.0) {
      const at::Generator generator = tensor_generator(mix_seeds(noise_seed_, step));
      images.add_(at::randn(images.sizes(), generator, at::kFloat), options_.input_noise);
      const at::Tensor wrong =
          at::rand(labels.sizes(), generator, at::kFloat).lt(options_.label_noise);
      labels = at::where(
          wrong, at::randint(data_->num_classes, labels.sizes(), generator, at::kLong), labels);
    }
    return {images, labels};
  }

 private:
  std::shared_ptr<const ImageData> data_;
  ImageBatchOptions options_;
  uint64_t noise_seed_;
  Epochs epochs_;
};

}  // namespace

std::unique_ptr<BatchStream> image_stream(std::shared_ptr<const ImageData> data,
                                          const ImageBatchOptions& options, uint64_t seed) {
  return std::make_unique<ImageStream>(std::move(data), options, seed);
}

std::vector<Batch> image_validation(const ImageData& data, const ImageBatchOptions& options) {
  const int64_t count = std::min(options.validation_size, data.test.size());
  std::vector<Batch> batches;
  for (int64_t start = 0; start < count; start += kValidationBatch) {
    const int64_t size = std::min(kValidationBatch, count - start);
    batches.push_back({data.normalize(data.test.images.narrow(0, start, size)),
                       map_labels(data.test.labels.narrow(0, start, size), options.label_map)});
  }
  return batches;
}

}  // namespace mnemosyne::tasks
