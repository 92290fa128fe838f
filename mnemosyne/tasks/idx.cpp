#include "mnemosyne/tasks/idx.h"

#include <cstdio>
#include <vector>

#include "mnemosyne/tasks/bytes.h"

namespace mnemosyne::tasks {
namespace {

constexpr uint32_t kMagicOfImages = 0x803, kMagicOfLabels = 0x801;
constexpr uint32_t kLargestSide = 4096;

std::string hex(uint32_t value) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", value);
  return text;
}

// The i-th big-endian number of the header, whose length was checked.
uint32_t word(std::string_view bytes, size_t i) {
  uint32_t value = 0;
  for (const char c : bytes.substr(4 * i, 4)) value = value << 8 | static_cast<unsigned char>(c);
  return value;
}

/// Sizes of a file with that magic number, whose product is the number of bytes behind the header.
std::vector<int64_t> read_sizes(std::string_view bytes, const std::string& name, uint32_t magic) {
  const size_t dims = magic & 0xff, header = 4 * (1 + dims);
  if (bytes.size() < header) {
    refuse_data(name, "an IDX header of " + std::to_string(header) + " bytes",
                std::to_string(bytes.size()) + " bytes");
  }
  if (word(bytes, 0) != magic) {
    refuse_data(name, "the IDX magic number " + hex(magic), hex(word(bytes, 0)));
  }
  std::vector<int64_t> sizes;
  uint64_t count = 1;
  for (size_t i = 0; i < dims; ++i) {
    const uint32_t size = word(bytes, 1 + i);
    // Bounds the product, so that it cannot overflow.
    if (size == 0 || (i > 0 && size > kLargestSide)) {
      refuse_data(name, i > 0 ? "sides of 1 to 4096 pixels" : "at least one example",
                  std::to_string(size));
    }
    sizes.push_back(size);
    count *= size;
  }
  if (bytes.size() - header != count) {
    refuse_data(name, std::to_string(count) + " bytes behind the header",
                std::to_string(bytes.size() - header));
  }
  return sizes;
}

}  // namespace

at::Tensor parse_idx_images(std::string_view bytes, const std::string& name) {
  const std::vector<int64_t> sizes = read_sizes(bytes, name, kMagicOfImages);
  return byte_tensor(bytes.substr(16)).view({sizes[0], 1, sizes[1], sizes[2]});
}

at::Tensor parse_idx_labels(std::string_view bytes, const std::string& name, int64_t num_classes) {
  read_sizes(bytes, name, kMagicOfLabels);
  return checked_labels(byte_tensor(bytes.substr(8)), name, num_classes);
}

}  // namespace mnemosyne::tasks
