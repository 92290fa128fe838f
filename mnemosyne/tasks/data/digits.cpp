#include "mnemosyne/tasks/data/digits.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <charconv>
#include <string>
#include <vector>

#include "mnemosyne/core/embedded.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/io/gzip_source.h"

namespace mnemosyne::tasks {
namespace {

constexpr int64_t kSide = 8, kPixels = kSide * kSide, kClasses = 10;
constexpr int kBrightest = 16;
constexpr int64_t kTrainSize = 1500;
constexpr uint64_t kOrderSeed = 1797;
constexpr size_t kLargestFile = 16 << 20;

[[noreturn]] void refuse(size_t line, const std::string& found) {
  throw InputError("[digits] expected 64 pixels of 0 to 16 and a label of 0 to 9, got " + found +
                   " in line " + std::to_string(line));
}

// Appends the line's 65 numbers to `values`.
void parse_line(std::string_view line, size_t number, std::vector<uint8_t>& values) {
  const char *position = line.data(), *end = line.data() + line.size();
  for (int64_t column = 0; column <= kPixels; ++column) {
    int value = -1;
    const auto [next, error] = std::from_chars(position, end, value);
    const int largest = column < kPixels ? kBrightest : static_cast<int>(kClasses) - 1;
    if (error != std::errc() || value < 0 || value > largest) {
      refuse(number, "something else in column " + std::to_string(column + 1));
    }
    const bool last = column == kPixels;
    if (last != (next == end)) refuse(number, last ? "more columns" : "fewer columns");
    if (!last && *next != ',') refuse(number, "no comma");
    values.push_back(static_cast<uint8_t>(value));
    position = next + 1;
  }
}

}  // namespace

ImageData parse_digits(std::string_view text, int64_t train_size) {
  std::vector<uint8_t> values;
  size_t line_number = 0;
  while (!text.empty()) {
    const size_t length = text.find('\n');
    std::string_view line = text.substr(0, length);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    parse_line(line, ++line_number, values);
    text.remove_prefix(length == std::string_view::npos ? text.size() : length + 1);
  }
  const auto count = static_cast<int64_t>(line_number);
  if (count <= train_size) {
    throw InputError("[digits] expected more than " + std::to_string(train_size) + " images, got " +
                     std::to_string(count));
  }
  const at::Tensor table =
      at::tensor(values, at::kByte)
          .view({count, kPixels + 1})
          .index_select(0, at::tensor(permutation(count, kOrderSeed), at::kLong));
  const at::Tensor images = table.narrow(1, 0, kPixels).reshape({count, 1, kSide, kSide});
  const at::Tensor labels = table.select(1, kPixels).to(at::kLong);
  const auto part = [&](int64_t start, int64_t size) {
    return ImageSet{images.narrow(0, start, size), labels.narrow(0, start, size)};
  };
  ImageData data{.train = part(0, train_size),
                 .test = part(train_size, count - train_size),
                 .num_classes = kClasses};
  measure(data);
  return data;
}

std::shared_ptr<const ImageData> digits() {
  static const std::shared_ptr<const ImageData> data = [] {
    const std::string_view file = embedded_file("digits.csv.gz");
    if (file.empty()) {
      throw InputError("[digits] expected the digits inside the library, got a build without them");
    }
    const auto table = io::unpack_gzip(io::open_bytes(std::string(file), "digits.csv.gz"));
    return std::make_shared<const ImageData>(
        parse_digits(io::read_all(*table, kLargestFile), kTrainSize));
  }();
  return data;
}

}  // namespace mnemosyne::tasks
