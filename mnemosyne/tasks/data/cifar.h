#pragma once

#include <string>
#include <string_view>

#include "mnemosyne/tasks/data/image_data.h"

namespace mnemosyne::tasks {

/// The binary format of CIFAR-10 (www.cs.toronto.edu/~kriz/cifar.html): records of a label and 3 x
/// 32 x 32 bytes, red, green and blue one after the other. Images [N,3,32,32]. `name` is what
/// errors call the source. InputError when the length is no multiple of a record or a label is
/// above 9.
ImageSet parse_cifar(std::string_view bytes, const std::string& name);

}  // namespace mnemosyne::tasks
