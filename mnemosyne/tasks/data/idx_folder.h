#pragma once

#include <cstdint>
#include <string>

#include "mnemosyne/tasks/data/image_data.h"

namespace mnemosyne::tasks {

/// A folder with MNIST's four files: train-images-idx3-ubyte, train-labels-idx1-ubyte,
/// t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte, of ten classes. `pool` takes means of so many
/// pixels in each direction, which has to divide the sides.
ImageData read_idx_folder(const std::string& folder, int64_t pool);

/// The same with images of any size and channels and any number of classes: files of any name with
/// "train-images", "train-labels", "t10k-images" (or "test-images") and "t10k-labels" in it and
/// "idx" behind that, such as those of EMNIST. Without a held-out part every tenth image of each
/// class is held out.
ImageData read_own_idx_folder(const std::string& folder);

/// Whether the folder has a file for the training images of `read_own_idx_folder`.
bool is_idx_folder(const std::string& folder);

}  // namespace mnemosyne::tasks
