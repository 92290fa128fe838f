#include "mnemosyne/io/xz_source.h"

#include <array>
#include <stdexcept>
#include <utility>

#include "mnemosyne/core/error.h"

#ifdef MNEMOSYNE_HAS_LZMA
#include <lzma.h>
#endif

namespace mnemosyne::io {

#ifdef MNEMOSYNE_HAS_LZMA

namespace {

constexpr uint64_t kMemoryLimit = uint64_t{128} << 20;

class XzSource : public ByteSource {
 public:
  explicit XzSource(std::unique_ptr<ByteSource> packed) : packed_(std::move(packed)) {
    if (lzma_stream_decoder(&stream_, kMemoryLimit, LZMA_CONCATENATED) != LZMA_OK) {
      throw std::runtime_error("[xz] liblzma could not be started");
    }
  }
  ~XzSource() override { lzma_end(&stream_); }
  XzSource(const XzSource&) = delete;
  XzSource& operator=(const XzSource&) = delete;

  size_t read(char* buffer, size_t size) override {
    stream_.next_out = reinterpret_cast<uint8_t*>(buffer);
    stream_.avail_out = size;
    while (stream_.avail_out == size && !finished_) {
      if (stream_.avail_in == 0 && !at_end_) refill();
      check(lzma_code(&stream_, at_end_ ? LZMA_FINISH : LZMA_RUN));
    }
    return size - stream_.avail_out;
  }

  const std::string& name() const override { return packed_->name(); }

 private:
  void refill() {
    stream_.next_in = reinterpret_cast<const uint8_t*>(input_.data());
    stream_.avail_in = packed_->read(input_.data(), input_.size());
    at_end_ = stream_.avail_in == 0;
  }

  void check(lzma_ret status) {
    if (status == LZMA_STREAM_END) {
      finished_ = true;
    } else if (status == LZMA_BUF_ERROR) {
      refuse("a complete xz file", "which ends too early");
    } else if (status == LZMA_MEMLIMIT_ERROR) {
      refuse("an xz file that unpacks within 128 MiB of memory", "which needs more");
    } else if (status != LZMA_OK) {
      refuse("a valid xz file", "which is corrupt");
    }
  }

  [[noreturn]] void refuse(const std::string& expected, const std::string& why) const {
    throw InputError("[xz] expected " + expected + ", got " + name() + ", " + why);
  }

  std::unique_ptr<ByteSource> packed_;
  lzma_stream stream_ = LZMA_STREAM_INIT;
  std::array<char, 1 << 16> input_;
  bool at_end_ = false, finished_ = false;
};

}  // namespace

std::unique_ptr<ByteSource> unpack_xz(std::unique_ptr<ByteSource> packed) {
  return std::make_unique<XzSource>(std::move(packed));
}

bool has_xz() { return true; }

#else

std::unique_ptr<ByteSource> unpack_xz(std::unique_ptr<ByteSource> packed) {
  throw InputError(
      "[xz] expected a file that is not packed with xz, as this library was built "
      "without liblzma, got " +
      packed->name());
}

bool has_xz() { return false; }

#endif

}  // namespace mnemosyne::io
