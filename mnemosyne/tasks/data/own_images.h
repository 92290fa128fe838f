#pragma once

#include <memory>
#include <vector>

#include "mnemosyne/tasks/task_entry.h"

namespace mnemosyne::tasks {

/// What tasks on a user's images take, and the shape for which the list counts their parameters.
inline constexpr const char* kImageFolder = "a folder of images";
inline constexpr DataShape kOwnImages = kCifar;

/// Test tasks on the images of a user, of any size and number of classes: mlp_images, conv_images
/// and vit_images.
std::vector<TaskEntry> own_image_tasks();

/// 8 x 8 patches that cover images of a shape: the pixels of a patch's side, and of all of them.
struct PatchGrid {
  int64_t patch = 1;
  int64_t side = 8;
};
PatchGrid patch_grid(const DataShape& images);

/// A model of square images [B,C,side,side] as one of images of a shape that is not larger: with
/// the mean pixel around them, which normalised images have at zero.
std::shared_ptr<const Model> padded_to_square(std::shared_ptr<const Model> model,
                                              const DataShape& images, int64_t side);

}  // namespace mnemosyne::tasks
