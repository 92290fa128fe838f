#include "mnemosyne/io/gzip_source.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <limits>
#include <stdexcept>
#include <utility>

#include "mnemosyne/core/error.h"

namespace mnemosyne::io {
namespace {

constexpr int kGzipOnly = 16;       // added to the window size, as zlib.h asks for it
constexpr Bytef kFirstByte = 0x1f;  // of every member

class GzipSource : public ByteSource {
 public:
  explicit GzipSource(std::unique_ptr<ByteSource> packed) : packed_(std::move(packed)) {
    if (inflateInit2(&stream_, MAX_WBITS + kGzipOnly) != Z_OK) {
      throw std::runtime_error("[gzip] zlib could not be started");
    }
  }
  ~GzipSource() override { inflateEnd(&stream_); }
  GzipSource(const GzipSource&) = delete;
  GzipSource& operator=(const GzipSource&) = delete;

  size_t read(char* buffer, size_t size) override {
    size = std::min<size_t>(size, std::numeric_limits<uInt>::max());
    stream_.next_out = reinterpret_cast<Bytef*>(buffer);
    stream_.avail_out = static_cast<uInt>(size);
    while (stream_.avail_out == size) {
      if (between_members_) skip_zeros();
      const bool at_end = stream_.avail_in == 0 && !refill();
      if (at_end && between_members_) return 0;
      if (at_end) refuse("a complete gzip file", "which ends too early");
      if (between_members_ && *stream_.next_in != kFirstByte) refuse_rest();
      const int status = inflate(&stream_, Z_NO_FLUSH);
      if (status == Z_STREAM_END) {
        inflateReset(&stream_);
        between_members_ = true;
      } else if (status == Z_OK) {
        between_members_ = false;
      } else if (between_members_) {
        refuse_rest();
      } else {
        refuse("a valid gzip file", "which is corrupt");
      }
    }
    return size - stream_.avail_out;
  }

  const std::string& name() const override { return packed_->name(); }

 private:
  // Padding to a whole block, which gzip and Python pass over, too.
  void skip_zeros() {
    do {
      for (; stream_.avail_in > 0 && *stream_.next_in == 0; --stream_.avail_in) ++stream_.next_in;
    } while (stream_.avail_in == 0 && refill());
  }

  bool refill() {
    stream_.next_in = reinterpret_cast<Bytef*>(input_.data());
    stream_.avail_in = static_cast<uInt>(packed_->read(input_.data(), input_.size()));
    return stream_.avail_in > 0;
  }

  [[noreturn]] void refuse_rest() const {
    refuse("nothing behind the gzip data", "which has more");
  }

  [[noreturn]] void refuse(const std::string& expected, const std::string& why) const {
    throw InputError("[gzip] expected " + expected + ", got " + name() + ", " + why);
  }

  std::unique_ptr<ByteSource> packed_;
  z_stream stream_ = {};
  std::array<char, 1 << 16> input_;
  bool between_members_ = false;
};

}  // namespace

std::unique_ptr<ByteSource> unpack_gzip(std::unique_ptr<ByteSource> packed) {
  return std::make_unique<GzipSource>(std::move(packed));
}

}  // namespace mnemosyne::io
