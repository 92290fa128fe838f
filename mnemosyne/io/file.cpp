#include "mnemosyne/io/file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "mnemosyne/core/error.h"

namespace mnemosyne::io {
namespace {

std::runtime_error write_failure(const std::string& path) {
  return std::runtime_error("[file] writing " + path + " failed: " + std::strerror(errno));
}

// False when the disk did not take everything; errno says why.
bool write_pieces(int descriptor, const std::vector<std::string_view>& pieces) {
  for (std::string_view piece : pieces) {
    while (!piece.empty()) {
      const ssize_t written = ::write(descriptor, piece.data(), piece.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return false;
      piece.remove_prefix(static_cast<size_t>(written));
    }
  }
  return ::fsync(descriptor) == 0;
}

}  // namespace

std::string read_file(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    throw InputError("[file] expected a readable file, got " + path + ", which does not exist");
  }
  if (!std::filesystem::is_regular_file(status)) {
    throw InputError("[file] expected a readable file, got " + path + ", which is not a file");
  }
  std::ifstream stream(path, std::ios::binary);
  std::string bytes(static_cast<size_t>(std::filesystem::file_size(path, error)), '\0');
  if (error || !stream || !stream.read(bytes.data(), static_cast<std::streamsize>(bytes.size()))) {
    throw InputError("[file] expected a readable file, got " + path + ", which cannot be read");
  }
  return bytes;
}

void write_file(const std::string& path, const std::vector<std::string_view>& pieces) {
  const std::string beside = path + ".part" + std::to_string(::getpid());
  const int descriptor = ::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor < 0) {
    throw InputError("[file] expected a path that can be written to, got " + path + ": " +
                     std::strerror(errno));
  }
  const bool complete = write_pieces(descriptor, pieces);
  const bool closed = ::close(descriptor) == 0;
  if (!complete || !closed || std::rename(beside.c_str(), path.c_str()) != 0) {
    const auto failure = write_failure(path);
    ::unlink(beside.c_str());
    throw failure;
  }
}

}  // namespace mnemosyne::io
