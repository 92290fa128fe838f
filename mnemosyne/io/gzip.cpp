#include "mnemosyne/io/gzip.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <limits>
#include <stdexcept>

#include "mnemosyne/core/error.h"
#include "mnemosyne/io/file.h"

namespace mnemosyne::io {
namespace {

constexpr int kGzipOnly = 16;  // added to the window size, as zlib.h asks for it

bool is_gzip(std::string_view bytes) { return bytes.substr(0, 2) == "\x1f\x8b"; }

InputError too_large(const std::string& name, size_t max_bytes) {
  return InputError("[gzip] expected at most " + std::to_string(max_bytes) + " bytes, got " + name +
                    ", which holds more");
}

/// One inflate stream, freed on every way out.
class Inflater {
 public:
  Inflater() {
    if (inflateInit2(&stream_, MAX_WBITS + kGzipOnly) != Z_OK) {
      throw std::runtime_error("[gzip] zlib could not be started");
    }
  }
  ~Inflater() { inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  z_stream* operator->() { return &stream_; }
  z_stream* get() { return &stream_; }

 private:
  z_stream stream_ = {};
};

/// Unpacks the gzip member at the front of `bytes`, appends it to `result` and removes it from
/// `bytes`.
void unpack_member(std::string_view& bytes, const std::string& name, size_t max_bytes,
                   std::string& result) {
  Inflater stream;
  // zlib does not write to its input, its interface only predates const.
  stream->next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream->avail_in =
      static_cast<uInt>(std::min<size_t>(bytes.size(), std::numeric_limits<uInt>::max()));
  const size_t given = stream->avail_in;
  std::array<char, 1 << 16> chunk;
  int status = Z_OK;
  while (status != Z_STREAM_END) {
    stream->next_out = reinterpret_cast<Bytef*>(chunk.data());
    stream->avail_out = static_cast<uInt>(chunk.size());
    status = inflate(stream.get(), Z_NO_FLUSH);
    if (status == Z_BUF_ERROR) {
      throw InputError("[gzip] expected a complete gzip file, got " + name +
                       ", which ends too early");
    }
    if (status != Z_OK && status != Z_STREAM_END) {
      throw InputError("[gzip] expected a valid gzip file, got " + name + ", which is corrupt");
    }
    const size_t made = chunk.size() - stream->avail_out;
    if (made > max_bytes - result.size()) throw too_large(name, max_bytes);
    result.append(chunk.data(), made);
  }
  bytes.remove_prefix(given - stream->avail_in);
}

}  // namespace

std::string unpack_gzip(std::string_view bytes, const std::string& name, size_t max_bytes) {
  if (!is_gzip(bytes)) {
    if (bytes.size() > max_bytes) throw too_large(name, max_bytes);
    return std::string(bytes);
  }
  std::string result;
  while (!bytes.empty()) {
    if (!is_gzip(bytes)) {
      throw InputError("[gzip] expected nothing behind the gzip data, got " + name + " with " +
                       std::to_string(bytes.size()) + " more bytes");
    }
    unpack_member(bytes, name, max_bytes, result);
    // Padding to a whole block, which gzip and Python pass over, too.
    bytes.remove_prefix(std::min(bytes.find_first_not_of('\0'), bytes.size()));
  }
  return result;
}

std::string read_plain_or_gzip(const std::string& path, size_t max_bytes) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (!error && size > max_bytes) throw too_large(path, max_bytes);
  std::string bytes = read_file(path);
  if (!is_gzip(bytes)) return bytes;
  return unpack_gzip(bytes, path, max_bytes);
}

}  // namespace mnemosyne::io
