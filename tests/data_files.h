#pragma once

#include <gtest/gtest.h>
#include <zlib.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "mnemosyne/core/error.h"
#include "tests/testing.h"

namespace mnemosyne::testing {

/// What the InputError of `action` says; fails when there is none, or when it has several lines.
inline std::string refusal(const std::function<void()>& action) {
  try {
    action();
  } catch (const InputError& error) {
    const std::string text = error.what();
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    return text;
  }
  ADD_FAILURE() << "expected an InputError";
  return {};
}

#define EXPECT_MENTIONS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

/// A folder of a test's own, removed behind it.
class TestFolder {
 public:
  explicit TestFolder(const std::string& name) : path_(temporary_path(name)) {
    std::filesystem::create_directories(path_);
  }
  ~TestFolder() { std::filesystem::remove_all(path_); }

  const std::string& path() const { return path_; }

  std::string write(const std::string& name, const std::string& bytes) const {
    const std::string file = path_ + "/" + name;
    std::filesystem::create_directories(std::filesystem::path(file).parent_path());
    std::ofstream(file, std::ios::binary) << bytes;
    return file;
  }

 private:
  std::string path_;
};

inline std::string gzip(const std::string& content) {
  std::string packed(content.size() + 1000, '\0');
  z_stream stream = {};
  deflateInit2(&stream, 9, Z_DEFLATED, MAX_WBITS + 16, 9, Z_DEFAULT_STRATEGY);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(content.data()));
  stream.avail_in = static_cast<uInt>(content.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

/// A tar header by hand (POSIX.1-1988), with the size field as given.
inline std::string tar_header(const std::string& name, const std::string& size, char type = '0') {
  std::string header(512, '\0');
  header.replace(0, name.size(), name);
  header.replace(100, 7, "0000644");
  header.replace(124, size.size(), size);
  header[156] = type;
  header.replace(257, 8,
                 std::string("ustar\0"
                             "00",
                             8));
  header.replace(148, 8, 8, ' ');
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<unsigned char>(c);
  char digits[8];
  std::snprintf(digits, sizeof digits, "%06o", sum);
  header.replace(148, 7, std::string(digits, 7));
  return header;
}

inline std::string octal(size_t size) {
  char digits[16];
  std::snprintf(digits, sizeof digits, "%011zo", size);
  return digits;
}

inline std::string tar_member(const std::string& name, const std::string& content) {
  return tar_header(name, octal(content.size())) + content +
         std::string((512 - content.size() % 512) % 512, '\0');
}

/// $MNEMOSYNE_DATA/name, or nothing when that is no folder.
inline std::string real_data(const std::string& name) {
  const char* folder = std::getenv("MNEMOSYNE_DATA");
  const std::string path = folder == nullptr ? "" : std::string(folder) + "/" + name;
  return std::filesystem::is_directory(path) ? path : "";
}

}  // namespace mnemosyne::testing
