#include "mnemosyne/io/byte_source.h"

#include <filesystem>
#include <fstream>
#include <string_view>
#include <utility>

#include "mnemosyne/core/error.h"
#include "mnemosyne/io/gzip_source.h"
#include "mnemosyne/io/xz_source.h"

namespace mnemosyne::io {
namespace {

constexpr std::string_view kGzip = "\x1f\x8b", kXz{"\xfd\x37\x7a\x58\x5a\x00", 6};

class PlainFile : public ByteSource {
 public:
  explicit PlainFile(const std::string& path) : path_(path) {
    std::error_code error;
    const auto status = std::filesystem::status(path, error);
    if (!std::filesystem::exists(status)) refuse("does not exist");
    if (!std::filesystem::is_regular_file(status)) refuse("is not a file");
    stream_.open(path, std::ios::binary);
    if (!stream_) refuse("cannot be read");
  }

  size_t read(char* buffer, size_t size) override {
    stream_.read(buffer, static_cast<std::streamsize>(size));
    if (stream_.bad()) refuse("cannot be read");
    return static_cast<size_t>(stream_.gcount());
  }

  const std::string& name() const override { return path_; }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    throw InputError("[file] expected a readable file, got " + path_ + ", which " + why);
  }

  std::string path_;
  std::ifstream stream_;
};

class Bytes : public ByteSource {
 public:
  Bytes(std::string bytes, std::string name) : bytes_(std::move(bytes)), name_(std::move(name)) {}

  size_t read(char* buffer, size_t size) override {
    const size_t count = bytes_.copy(buffer, size, position_);
    position_ += count;
    return count;
  }

  const std::string& name() const override { return name_; }

 private:
  std::string bytes_, name_;
  size_t position_ = 0;
};

}  // namespace

std::unique_ptr<ByteSource> open_bytes(std::string bytes, std::string name) {
  return std::make_unique<Bytes>(std::move(bytes), std::move(name));
}

std::unique_ptr<ByteSource> open_plain(const std::string& path) {
  return std::make_unique<PlainFile>(path);
}

std::unique_ptr<ByteSource> open_unpacked(const std::string& path) {
  char first[kXz.size()];
  const std::string_view start(first, open_plain(path)->read(first, sizeof first));
  if (start == kXz) return unpack_xz(open_plain(path));
  if (start.substr(0, kGzip.size()) == kGzip) return unpack_gzip(open_plain(path));
  return open_plain(path);
}

std::string read_all(ByteSource& source, size_t max_bytes) {
  constexpr size_t kPiece = 1 << 16;
  std::string bytes;
  for (size_t count = 1, end = 0; count > 0; end += count) {
    if (end > max_bytes) {
      throw InputError("[data] expected at most " + std::to_string(max_bytes) + " bytes, got " +
                       source.name() + ", which holds more");
    }
    bytes.resize(end + kPiece);
    count = source.read(bytes.data() + end, kPiece);
    bytes.resize(end + count);
  }
  return bytes;
}

std::string read_unpacked(const std::string& path, size_t max_bytes) {
  return read_all(*open_unpacked(path), max_bytes);
}

}  // namespace mnemosyne::io
