#pragma once

#include <string>

#include "mnemosyne/tasks/data/image_data.h"

namespace mnemosyne::tasks {

/// PNG and JPEG files in a subfolder per class, as torchvision's ImageFolder has them:
///
///     FOLDER/train/CLASS/*.png    FOLDER/val/CLASS/*.png    (or valid, validation, test)
///     FOLDER/CLASS/*.png          every tenth image of each class is held out
///
/// Classes are numbered in the order of their names, images stand in that of their paths; files may
/// lie deeper in the folder of their class. All images have to be of one size. Where any of them
/// has colours all have three channels, else one. Files of other kinds and those whose name starts
/// with a dot are left alone.
///
/// InputError that names file or folder: fewer than two classes, a class without images, one that
/// is held out but not trained on, an image of another size, damaged or in a format of images that
/// is not read, images outside the folders of classes, and more than 4 GiB of pixels.
ImageData read_image_folder(const std::string& folder);

}  // namespace mnemosyne::tasks
