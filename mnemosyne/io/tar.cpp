#include "mnemosyne/io/tar.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "mnemosyne/core/error.h"
#include "mnemosyne/io/file.h"

namespace mnemosyne::io {
namespace {

// POSIX.1-1988 (ustar): fields of a header by offset and length.
constexpr size_t kBlock = 512;
constexpr size_t kName = 0, kNameSize = 100, kSize = 124, kSizeSize = 12;
constexpr size_t kChecksum = 148, kChecksumSize = 8, kType = 156;
constexpr size_t kPrefix = 345, kPrefixSize = 155, kMagic = 257;
constexpr uint64_t kMostBytes = uint64_t{4} << 30;

std::string text_field(const char* header, size_t offset, size_t size) {
  return {header + offset, std::find(header + offset, header + offset + size, '\0')};
}

/// Octal digits between optional spaces and zero bytes; false for anything else, GNU's binary sizes
/// of 8 GiB and more included.
bool parse_octal(const char* header, size_t offset, size_t size, uint64_t& value) {
  const char *position = header + offset, *end = position + size;
  while (position < end && *position == ' ') ++position;
  const char* first = position;
  for (value = 0; position < end && *position >= '0' && *position <= '7'; ++position) {
    value = value * 8 + static_cast<uint64_t>(*position - '0');
  }
  const bool any = position > first;
  while (position < end && (*position == ' ' || *position == '\0')) ++position;
  return any && position == end;
}

uint64_t checksum(const char* header) {
  uint64_t sum = 0;
  for (size_t i = 0; i < kBlock; ++i) {
    const bool own = i >= kChecksum && i < kChecksum + kChecksumSize;
    sum += own ? ' ' : static_cast<unsigned char>(header[i]);
  }
  return sum;
}

std::string path_of(const char* header) {
  std::string name = text_field(header, kName, kNameSize);
  // GNU's own format has other things where ustar has the prefix.
  if (std::string_view(header + kMagic, 6) == std::string_view("ustar\0", 6)) {
    const std::string prefix = text_field(header, kPrefix, kPrefixSize);
    if (!prefix.empty()) name = prefix + "/" + name;
  }
  return name;
}

}  // namespace

TarReader::TarReader(std::unique_ptr<ByteSource> source) : source_(std::move(source)) {}

void TarReader::refuse(const std::string& expected, const std::string& found) const {
  const std::string after = member_.empty() ? "" : " at or behind " + in_quotes(member_);
  throw InputError("[tar] expected " + expected + ", got " + found + " in " + source_->name() +
                   after);
}

// False at the end: a block of zeros, or nothing more.
bool TarReader::read_header(char* header) {
  size_t filled = 0;
  while (filled < kBlock) {
    const size_t count = source_->read(header + filled, kBlock - filled);
    if (count == 0) break;
    filled += count;
  }
  if (filled == 0) return false;
  if (filled < kBlock) {
    refuse("a tar header of 512 bytes", std::to_string(filled) + " bytes");
  }
  if (std::all_of(header, header + kBlock, [](char c) { return c == '\0'; })) return false;
  uint64_t sum = 0;
  if (!parse_octal(header, kChecksum, kChecksumSize, sum) || sum != checksum(header)) {
    refuse("a tar header", "a block whose checksum is not one");
  }
  return true;
}

void TarReader::account(uint64_t size) {
  total_ += size;
  if (total_ > kMostBytes) refuse("at most 4 GiB of files", "more");
}

bool TarReader::next() {
  skip(left_ + padding_);
  left_ = padding_ = 0;
  std::array<char, kBlock> header;
  std::string long_name;
  while (read_header(header.data())) {
    uint64_t size = 0;
    if (!parse_octal(header.data(), kSize, kSizeSize, size)) {
      refuse("the size of a file", in_quotes(text_field(header.data(), kSize, kSizeSize)));
    }
    account(size);
    const uint64_t padding = (kBlock - size % kBlock) % kBlock;
    const char type = header[kType];
    if (type == '0' || type == '\0') {
      member_ = long_name.empty() ? path_of(header.data()) : long_name;
      left_ = size;
      padding_ = padding;
      return true;
    }
    if (type == 'L') {  // GNU: the content is the name of the next file
      const uint64_t length = std::min<uint64_t>(size, 255);
      long_name = take(length);
      long_name = long_name.substr(0, long_name.find('\0'));
      skip(size - length + padding);
    } else {
      skip(size + padding);
    }
  }
  return false;
}

// In pieces, so that a size which is a lie costs no memory.
std::string TarReader::take(uint64_t size) {
  std::array<char, 1 << 14> piece;
  std::string bytes;
  while (bytes.size() < size) {
    const size_t count =
        source_->read(piece.data(), std::min<uint64_t>(piece.size(), size - bytes.size()));
    if (count == 0) {
      refuse("a file of " + std::to_string(size) + " bytes",
             "the end after " + std::to_string(bytes.size()));
    }
    bytes.append(piece.data(), count);
  }
  return bytes;
}

void TarReader::skip(uint64_t size) {
  std::array<char, 1 << 14> piece;
  for (uint64_t left = size; left > 0;) {
    const size_t count = source_->read(piece.data(), std::min<uint64_t>(piece.size(), left));
    if (count == 0) refuse(std::to_string(left) + " more bytes", "the end of the archive");
    left -= count;
  }
}

std::string TarReader::content(size_t max_bytes) {
  if (left_ > max_bytes) {
    refuse("files of at most " + std::to_string(max_bytes) + " bytes",
           "one of " + std::to_string(left_));
  }
  return take(std::exchange(left_, 0));
}

}  // namespace mnemosyne::io
