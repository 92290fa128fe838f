#pragma once

#include <memory>
#include <vector>

#include "mnemosyne/tasks/data/image_data.h"
#include "mnemosyne/tasks/task.h"

namespace mnemosyne::tasks {

/// What a run sees of an image set, and how it is disturbed.
struct ImageBatchOptions {
  int64_t batch_size = 64;
  int64_t train_size = 0;    ///< Only the first so many training images; 0 means all.
  double input_noise = 0.0;  ///< Standard deviation of fresh normal noise, in those of the pixels.
  double label_noise = 0.0;  ///< Probability of a fresh random label.
  std::vector<int64_t> label_map = {};  ///< New label of every class; empty means unchanged.
  int64_t validation_size = 2000;       ///< At most so many test images.
};

/// Batches {images [B,C,H,W] float32 and normalised, labels [B] int64}. Validation is never noisy.
std::unique_ptr<BatchStream> image_stream(std::shared_ptr<const ImageData> data,
                                          const ImageBatchOptions& options, uint64_t seed);
std::vector<Batch> image_validation(const ImageData& data, const ImageBatchOptions& options);

}  // namespace mnemosyne::tasks
