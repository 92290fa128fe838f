#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace mnemosyne::tasks {

/// The IDX format of MNIST (yann.lecun.com/exdb/mnist): a big-endian header and then bytes. `name`
/// is what errors call the source. InputError when magic number, counts, length or a label do not
/// fit.

/// Images as uint8 [N,1,H,W], from a file of magic number 0x803.
at::Tensor parse_idx_images(std::string_view bytes, const std::string& name);

/// Labels as int64 [N], each below `num_classes`, from a file of magic number 0x801.
at::Tensor parse_idx_labels(std::string_view bytes, const std::string& name, int64_t num_classes);

}  // namespace mnemosyne::tasks
