#include <gtest/gtest.h>

#include <string>

#include "mnemosyne/io/byte_source.h"
#include "tests/data_files.h"

namespace mnemosyne::io {
namespace {

using mnemosyne::testing::gzip;
using mnemosyne::testing::refusal;
using mnemosyne::testing::TestFolder;

/// Read in pieces of that size.
std::string content(const std::string& packed, size_t piece) {
  const TestFolder folder("gzip");
  const auto source = open_unpacked(folder.write("file.gz", packed));
  std::string text, buffer(piece, '\0');
  while (const size_t count = source->read(buffer.data(), piece)) text.append(buffer, 0, count);
  return text;
}

void expect_refused(const std::string& packed, const std::string& words) {
  const TestFolder folder("bad_gzip");
  const std::string file = folder.write("file.gz", packed);
  const std::string in_pieces = refusal([&] {
    const auto source = open_unpacked(file);
    char byte;
    while (source->read(&byte, 1) > 0) continue;
  });
  EXPECT_MENTIONS(in_pieces, words);
  EXPECT_MENTIONS(in_pieces, "file.gz");
}

TEST(Gzip, ZerosBehindAMemberArePadding) {
  const std::string first = gzip("one "), second = gzip("two");
  for (const size_t zeros : {0, 1, 511, 200'000}) {
    const std::string padding(zeros, '\0');
    for (const size_t piece : {1, 3, 1000}) {
      EXPECT_EQ(content(first + padding, piece), "one ");
      EXPECT_EQ(content(first + padding + second + padding, piece), "one two");
      EXPECT_EQ(content(first + gzip("") + padding + second, piece), "one two");
    }
  }
}

TEST(Gzip, AnythingElseBehindAMemberIsRefused) {
  const std::string first = gzip("one "), second = gzip("two");
  for (const size_t zeros : {0, 1, 511, 70'000}) {
    const std::string packed = first + std::string(zeros, '\0');
    expect_refused(packed + "x", "nothing behind the gzip data");
    expect_refused(packed + "x" + second, "nothing behind the gzip data");
    for (const size_t size : {2, 3, 10, 20}) {
      expect_refused(packed + second.substr(0, size), "ends too early");
    }
  }
  for (size_t size = 2; size < first.size(); ++size) {
    expect_refused(first.substr(0, size), "ends too early");
  }
}

}  // namespace
}  // namespace mnemosyne::io
