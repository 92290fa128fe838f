#include "mnemosyne/tasks/data/idx.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "mnemosyne/tasks/data/bytes.h"

namespace mnemosyne::tasks {
namespace {

constexpr uint32_t kGreyImages = 0x803, kImages = 0x804;
constexpr uint32_t kByteLabels = 0x801, kShortLabels = 0xb01, kIntLabels = 0xc01;
constexpr uint32_t kLargestSide = 4096;
constexpr uint64_t kHuge = uint64_t{1} << 62;  // more than any file has
constexpr int64_t kMostClasses = 100'000;

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

/// Sizes of a file with one of these magic numbers, whose product is the count of numbers, of
/// `width` bytes each, behind the header.
std::vector<int64_t> read_sizes(std::string_view bytes, const std::string& name,
                                const std::vector<uint32_t>& magics, size_t& width) {
  const uint32_t magic = bytes.size() < 4 ? 0 : word(bytes, 0);
  if (bytes.size() >= 4 && std::find(magics.begin(), magics.end(), magic) == magics.end()) {
    std::string known;
    for (const uint32_t each : magics) known += (known.empty() ? "" : " or ") + hex(each);
    refuse_data(name, "the IDX magic number " + known, hex(magic));
  }
  const size_t dims = magic & 0xff, header = 4 * (1 + dims);
  if (bytes.size() < header || bytes.size() < 4) {
    refuse_data(name, "an IDX header of " + std::to_string(std::max<size_t>(header, 8)) + " bytes",
                std::to_string(bytes.size()) + " bytes");
  }
  width = magic >> 8 == 0x08 ? 1 : magic >> 8 == 0x0b ? 2 : 4;
  std::vector<int64_t> sizes;
  uint64_t count = width;
  for (size_t i = 0; i < dims; ++i) {
    const uint32_t size = word(bytes, 1 + i);
    if (size == 0 || (i > 0 && size > kLargestSide)) {
      refuse_data(name, i > 0 ? "sides of 1 to 4096 pixels" : "at least one example",
                  std::to_string(size));
    }
    sizes.push_back(size);
    count = count > kHuge / size ? kHuge : count * size;
  }
  if (bytes.size() - header != count) {
    refuse_data(name, std::to_string(count) + " bytes behind the header",
                std::to_string(bytes.size() - header));
  }
  return sizes;
}

}  // namespace

at::Tensor parse_idx_images(std::string_view bytes, const std::string& name) {
  size_t width = 1;
  const auto sizes = read_sizes(bytes, name, {kGreyImages, kImages}, width);
  const at::Tensor pixels = byte_tensor(bytes.substr(4 * (1 + sizes.size())));
  if (sizes.size() == 3) return pixels.view({sizes[0], 1, sizes[1], sizes[2]});
  if (sizes[1] == sizes[3]) {
    refuse_data(name, "channels in the first or the last place, fewer than pixels in the other",
                std::to_string(sizes[1]) + " in both");
  }
  const at::Tensor images = pixels.view(sizes);
  return sizes[1] < sizes[3] ? images : images.permute({0, 3, 1, 2}).contiguous();
}

at::Tensor parse_idx_labels(std::string_view bytes, const std::string& name, int64_t num_classes) {
  size_t width = 1;
  const int64_t count = read_sizes(bytes, name, {kByteLabels, kShortLabels, kIntLabels}, width)[0];
  const std::string_view numbers = bytes.substr(8);
  const at::Tensor labels = at::empty({count}, at::kLong);
  auto* out = labels.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < count; ++i) {
    uint32_t value = 0;
    for (const char c : numbers.substr(i * width, width)) {
      value = value << 8 | static_cast<unsigned char>(c);
    }
    out[i] = width == 1   ? value
             : width == 2 ? static_cast<int16_t>(value)
                          : static_cast<int32_t>(value);
  }
  return checked_labels(labels, name, num_classes > 0 ? num_classes : kMostClasses);
}

}  // namespace mnemosyne::tasks
