#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace mnemosyne::tasks {

/// A copy of the bytes as a uint8 tensor [N].
at::Tensor byte_tensor(std::string_view bytes);

/// A byte as "0xff", for errors.
std::string hex_byte(char byte);

/// InputError "[data] expected EXPECTED, got FOUND in NAME".
[[noreturn]] void refuse_data(const std::string& name, const std::string& expected,
                              const std::string& found);

/// Labels as int64; refused when one is negative or not below `num_classes`.
at::Tensor checked_labels(const at::Tensor& labels, const std::string& name, int64_t num_classes);

}  // namespace mnemosyne::tasks
