#include "mnemosyne/io/tar.h"

#include <algorithm>
#include <array>
#include <charconv>
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
constexpr uint64_t kLongestExtension = uint64_t{1} << 20;

std::string text_field(const char* header, size_t offset, size_t size) {
  return {header + offset, std::find(header + offset, header + offset + size, '\0')};
}

/// Octal digits between optional spaces and zero bytes; false for anything else.
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

/// GNU's other way to write a number: a first byte of 0x80, and the rest as one big-endian number.
bool parse_binary(const char* header, size_t offset, size_t size, uint64_t& value) {
  if (header[offset] != '\x80') return false;
  value = 0;
  for (size_t i = offset + 1; i < offset + size; ++i) {
    if (value >> 56 != 0) return false;
    value = value << 8 | static_cast<unsigned char>(header[i]);
  }
  return true;
}

/// Some old programs took the bytes as signed ones.
bool is_checksum(const char* header, uint64_t given) {
  int64_t sum = 0, signed_sum = 0;
  for (size_t i = 0; i < kBlock; ++i) {
    const bool own = i >= kChecksum && i < kChecksum + kChecksumSize;
    sum += own ? ' ' : static_cast<unsigned char>(header[i]);
    signed_sum += own ? ' ' : static_cast<signed char>(header[i]);
  }
  const auto expected = static_cast<int64_t>(given);
  return expected == sum || expected == signed_sum;
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
  if (!parse_octal(header, kChecksum, kChecksumSize, sum) || !is_checksum(header, sum)) {
    refuse("a tar header", "a block whose checksum is not one");
  }
  return true;
}

void TarReader::account(uint64_t size) {
  if (size > kMostBytes - total_) refuse("at most 4 GiB of files", "more");
  total_ += size;
}

uint64_t TarReader::size_of(const char* header) const {
  uint64_t size = 0;
  if (!parse_octal(header, kSize, kSizeSize, size) &&
      !parse_binary(header, kSize, kSizeSize, size)) {
    refuse("the size of a file", in_quotes(text_field(header, kSize, kSizeSize)));
  }
  return size;
}

// POSIX.1-2001 (pax): "LENGTH KEY=VALUE\n", the length in decimal digits and of the whole record.
void TarReader::read_records(std::string_view records, Extension& extension) const {
  const auto parse = [](std::string_view digits, uint64_t& value) {
    const char* end = digits.data() + digits.size();
    const auto [stopped, error] = std::from_chars(digits.data(), end, value);
    return error == std::errc() && stopped == end;
  };
  while (!records.empty() && records.front() != '\0') {
    const size_t blank = records.find(' ');
    uint64_t length = 0;
    if (blank == std::string_view::npos || !parse(records.substr(0, blank), length) ||
        length < blank + 2 || length > records.size() || records[length - 1] != '\n') {
      refuse("a record of a pax header", in_quotes(records));
    }
    const std::string_view record = records.substr(blank + 1, length - blank - 2);
    const std::string_view key = record.substr(0, record.find('='));
    const std::string_view value = record.substr(std::min(key.size() + 1, record.size()));
    if (key == "path") extension.path = value;
    if (key == "size") {
      uint64_t size = 0;
      if (!parse(value, size)) refuse("the size of a file", in_quotes(value));
      extension.size = size;
    }
    if (key.starts_with("GNU.sparse.")) extension.sparse = true;
    records.remove_prefix(length);
  }
}

// False when this is no header about the next file, or about all.
bool TarReader::extend(const char* header, Extension& own) {
  const char type = header[kType];
  const bool records = type == 'x' || type == 'X' || type == 'g';
  if (!records && type != 'L' && type != 'K') return false;
  const uint64_t size = size_of(header);
  account(size);
  if (size > kLongestExtension) {
    refuse("a name or extended header of at most 1 MiB", "one of " + std::to_string(size));
  }
  const std::string content = take(size);
  skip((kBlock - size % kBlock) % kBlock);
  if (records) read_records(content, type == 'g' ? global_ : own);
  if (type == 'L') own.path = content.substr(0, content.find('\0'));
  return true;
}

// False when the entry is no regular file; its content, if it has any, is then behind the reader.
bool TarReader::start_file(const char* header, const Extension& own) {
  const char type = header[kType];
  const std::optional<uint64_t> extended = own.size ? own.size : global_.size;
  const uint64_t size = extended ? *extended : size_of(header);
  account(size);
  std::string path = own.path.empty() ? global_.path : own.path;
  if (path.empty()) path = path_of(header);
  const uint64_t padding = (kBlock - size % kBlock) % kBlock;
  const bool regular = type == '0' || type == '\0' || type == '7';
  if (type == 'S' || (regular && (own.sparse || global_.sparse))) {
    refuse("files that are whole", "the sparse file " + in_quotes(path));
  }
  if (!regular || path.ends_with('/')) {
    // Links, folders and devices have no content, whatever their size says.
    if (type < '1' || type > '6') skip(size + padding);
    return false;
  }
  member_ = std::move(path);
  left_ = size;
  padding_ = padding;
  return true;
}

bool TarReader::next() {
  skip(left_ + padding_);
  left_ = padding_ = 0;
  std::array<char, kBlock> header;
  Extension own;
  while (read_header(header.data())) {
    if (extend(header.data(), own)) continue;
    if (start_file(header.data(), own)) return true;
    own = {};
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
