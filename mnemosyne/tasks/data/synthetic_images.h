#pragma once

#include <cstdint>

#include "mnemosyne/tasks/data/image_data.h"

namespace mnemosyne::tasks {

struct SyntheticImageOptions {
  int64_t channels = 1, height = 12, width = 12;  ///< Height 1: signals.
  int64_t num_classes = 10;
  int64_t patterns = 2;  ///< Of a class: its images are one of so many, moved about.
  double moves = 1.0;    ///< How far, at most, as a fraction of height and width.
  double noise = 0.5;    ///< Standard deviation, in that of the patterns.
  int64_t train_size = 2000, test_size = 500;
};

/// Images or signals of another world for every seed: a class has a few smooth random patterns; an
/// image is one of them at a random place (what leaves on one side comes back on the other), at a
/// random strength, with a smooth background and noise.
ImageData synthetic_images(uint64_t seed, const SyntheticImageOptions& options = {});

}  // namespace mnemosyne::tasks
