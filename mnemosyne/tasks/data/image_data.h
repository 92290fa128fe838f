#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace mnemosyne::tasks {

/// N = images, C = channels, H and W = height and width.

/// Labelled images as they are stored: a quarter of the memory of floats.
struct ImageSet {
  at::Tensor images;  ///< [N,C,H,W], uint8.
  at::Tensor labels;  ///< [N], int64, each in 0 ... num_classes - 1.

  int64_t size() const { return labels.size(0); }
};

/// A data set in two parts that share no image.
struct ImageData {
  ImageSet train;
  ImageSet test;
  int64_t num_classes = 10;
  std::vector<std::string> class_names = {};  ///< By number; may be empty.
  std::string fingerprint = {};               ///< Task::data_fingerprint.
  at::Tensor mean =
      {};  ///< [C,1,1]: of every channel over the training part, in units of a stored pixel.
  at::Tensor scale = {};  ///< [C,1,1]: one over the standard deviation.

  /// Stored images to float32 ones of mean zero and standard deviation one.
  at::Tensor normalize(const at::Tensor& images) const;
};

/// Every tenth image of each class, in their order, as the part that is held out. InputError when
/// no class has ten of them; `name` is what it calls the source.
ImageData hold_out_tenths(const ImageSet& set, const std::string& name);

/// A checksum of all images, labels and names of classes.
std::string image_fingerprint(const ImageData& data);

/// Fills in `mean` and `scale` from the training images.
void measure(ImageData& data);

/// Means of `factor` x `factor` pixels, rounded to the grey levels that they are stored in; height
/// and width have to be multiples of the factor.
ImageSet average_pool(const ImageSet& set, int64_t factor);

}  // namespace mnemosyne::tasks
