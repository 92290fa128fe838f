#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace mnemosyne::tasks {

/// The IDX format of MNIST (yann.lecun.com/exdb/mnist): a big-endian header and then numbers.
/// `name` is what errors call the source. InputError when magic number, counts, length or a label
/// do not fit.

/// Images as uint8 [N,C,H,W], from a file of bytes (magic number 0x803: [N,H,W] with one channel;
/// 0x804: [N,C,H,W] or [N,H,W,C], of which the smaller of the two is taken for C).
at::Tensor parse_idx_images(std::string_view bytes, const std::string& name);

/// Labels as int64 [N], 0 or more and below `num_classes` (0: below 100,000), from a file of bytes,
/// 16-bit or 32-bit numbers (magic number 0x801, 0xb01 or 0xc01).
at::Tensor parse_idx_labels(std::string_view bytes, const std::string& name,
                            int64_t num_classes = 0);

}  // namespace mnemosyne::tasks
