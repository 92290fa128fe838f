#include "mnemosyne/io/tensorboard.h"

#include <bit>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "mnemosyne/core/error.h"
#include "mnemosyne/io/crc32c.h"
#include "mnemosyne/io/file.h"

namespace mnemosyne::io {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are written as they lie");

// Field numbers and wire types of the messages Event, Summary and Summary.Value.
constexpr char kEventWallTime = 1 << 3 | 1;     // double
constexpr char kEventStep = 2 << 3 | 0;         // varint
constexpr char kEventFileVersion = 3 << 3 | 2;  // text
constexpr char kEventSummary = 5 << 3 | 2;      // message
constexpr char kSummaryValue = 1 << 3 | 2;      // message
constexpr char kValueTag = 1 << 3 | 2;          // text
constexpr char kValueSimple = 2 << 3 | 5;       // float

constexpr size_t kFrameHead = 12;  // length and its checksum
constexpr size_t kFrameTail = 4;   // checksum of the data

template <typename T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

template <typename T>
T from_raw(std::string_view bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 128; value >>= 7) bytes += static_cast<char>(value | 128);
  return bytes + static_cast<char>(value);
}

std::string delimited(char field, const std::string& content) {
  return field + varint(content.size()) + content;
}

// TFRecord stores checksums rotated and shifted, so that a checksum of checksums stays useful.
uint32_t masked_crc(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xa282ead8u; }

std::string frame(const std::string& data) {
  const std::string length = raw<uint64_t>(data.size());
  return length + raw(masked_crc(length)) + data + raw(masked_crc(data));
}

double now() {
  const auto since_epoch = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration<double>(since_epoch).count();
}

std::string event_head(int64_t step) {
  return kEventWallTime + raw(now()) + kEventStep + varint(static_cast<uint64_t>(step));
}

// The step of an event that `event_head` began.
int64_t step_of(std::string_view event) {
  uint64_t step = 0;
  constexpr size_t kStepAt = 1 + sizeof(double) + 1;
  for (size_t i = kStepAt, shift = 0; i < event.size() && shift < 64; ++i, shift += 7) {
    step |= static_cast<uint64_t>(event[i] & 127) << shift;
    if ((event[i] & 128) == 0) break;
  }
  return static_cast<int64_t>(step);
}

// How many bytes of the file are whole events of steps up to `last_step`.
size_t bytes_until(std::string_view file, int64_t last_step) {
  size_t offset = 0;
  while (file.size() - offset >= kFrameHead + kFrameTail) {
    const auto length = from_raw<uint64_t>(file.substr(offset));
    if (length > file.size() - offset - kFrameHead - kFrameTail) break;
    const std::string_view event = file.substr(offset + kFrameHead, length);
    const auto checksum = from_raw<uint32_t>(file.substr(offset + kFrameHead + length));
    if (checksum != masked_crc(event) || step_of(event) > last_step) break;
    offset += kFrameHead + length + kFrameTail;
  }
  return offset;
}

}  // namespace

EventFile::EventFile(const std::string& path, std::optional<int64_t> last_step) {
  size_t kept = 0;
  if (last_step && std::filesystem::exists(path)) {
    kept = bytes_until(read_file(path), *last_step);
    std::filesystem::resize_file(path, kept);
  }
  stream_.open(path, std::ios::binary | (kept > 0 ? std::ios::app : std::ios::trunc));
  if (!stream_) {
    throw InputError("[metrics] expected a path that can be written to, got " + path);
  }
  if (kept == 0) {
    stream_ << frame(event_head(0) + delimited(kEventFileVersion, "brain.Event:2"));
  }
}

void EventFile::write(int64_t step, const std::vector<std::pair<std::string, double>>& values) {
  std::string summary;
  for (const auto& [name, value] : values) {
    const std::string content =
        delimited(kValueTag, name) + kValueSimple + raw(static_cast<float>(value));
    summary += delimited(kSummaryValue, content);
  }
  stream_ << frame(event_head(step) + delimited(kEventSummary, summary));
}

void EventFile::flush() { stream_.flush(); }

}  // namespace mnemosyne::io
