#include "mnemosyne/tasks/data/bytes.h"

#include <ATen/ops/empty.h>

#include <cstdio>
#include <cstring>

#include "mnemosyne/core/error.h"

namespace mnemosyne::tasks {

at::Tensor byte_tensor(std::string_view bytes) {
  at::Tensor result = at::empty({static_cast<int64_t>(bytes.size())}, at::kByte);
  if (!bytes.empty()) std::memcpy(result.mutable_data_ptr(), bytes.data(), bytes.size());
  return result;
}

std::string hex_byte(char byte) {
  char text[8];
  std::snprintf(text, sizeof text, "0x%02x", static_cast<unsigned char>(byte));
  return text;
}

void refuse_data(const std::string& name, const std::string& expected, const std::string& found) {
  throw InputError("[data] expected " + expected + ", got " + found + " in " + name);
}

at::Tensor checked_labels(const at::Tensor& labels, const std::string& name, int64_t num_classes) {
  const auto largest = labels.max().item<int64_t>(), smallest = labels.min().item<int64_t>();
  if (largest >= num_classes || smallest < 0) {
    refuse_data(name, "labels below " + std::to_string(num_classes),
                std::to_string(smallest < 0 ? smallest : largest));
  }
  return labels.to(at::kLong);
}

}  // namespace mnemosyne::tasks
