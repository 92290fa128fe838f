#include "mnemosyne/io/line_reader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/data_files.h"

namespace mnemosyne::io {
namespace {

using mnemosyne::testing::refusal;
using Lines = std::vector<std::string>;

/// Gives a few bytes at a time.
class Drops : public ByteSource {
 public:
  Drops(std::string bytes, size_t size) : bytes_(std::move(bytes)), size_(size) {}

  size_t read(char* buffer, size_t size) override {
    const size_t count = bytes_.copy(buffer, std::min(size, size_), position_);
    position_ += count;
    return count;
  }
  const std::string& name() const override { return name_; }

 private:
  std::string bytes_, name_ = "the_text";
  size_t size_, position_ = 0;
};

Lines lines(const std::string& text, size_t piece = 1 << 16) {
  LineReader reader(std::make_unique<Drops>(text, piece));
  Lines result;
  std::string_view line;
  while (reader.next(line)) {
    result.emplace_back(line);
    EXPECT_EQ(reader.number(), static_cast<int64_t>(result.size()));
  }
  EXPECT_FALSE(reader.next(line));
  EXPECT_EQ(reader.number(), static_cast<int64_t>(result.size()));
  return result;
}

TEST(LineReader, LinesOfEverySystemEndAsForPython) {
  for (const size_t piece : {1, 2, 3, 7, 1000}) {
    EXPECT_EQ(lines("", piece), Lines{});
    EXPECT_EQ(lines("\n", piece), Lines{""});
    EXPECT_EQ(lines("\r", piece), Lines{""});
    EXPECT_EQ(lines("a", piece), Lines{"a"});
    EXPECT_EQ(lines("a\nb\n\nc", piece), (Lines{"a", "b", "", "c"}));
    EXPECT_EQ(lines("a\r\nb\r\n\r\nc\r\n", piece), (Lines{"a", "b", "", "c"}));
    EXPECT_EQ(lines("a\rb\r\rc\r", piece), (Lines{"a", "b", "", "c"}));
    EXPECT_EQ(lines("a\r\r\nb\n\rc\v\f\x1c\xc2\x85", piece),
              (Lines{"a", "", "b", "", "c\v\f\x1c\xc2\x85"}));
  }
}

TEST(LineReader, LinesMayCrossPieces) {
  std::string text;
  Lines expected;
  for (int i = 0; i < 3000; ++i) {
    expected.emplace_back(static_cast<size_t>(i * 7 % 300), static_cast<char>('a' + i % 26));
    text += expected.back() + (i % 3 == 0 ? "\n" : i % 3 == 1 ? "\r\n" : "\r");
    if (i % 3 == 2) {  // or the "\r" and an empty line's "\n" are one end
      expected.emplace_back("-");
      text += "-\n";
    }
  }
  for (const size_t piece : {13, 4096, 1 << 16}) EXPECT_EQ(lines(text, piece), expected);
}

TEST(LineReader, RefusesWhatIsNoText) {
  EXPECT_MENTIONS(refusal([] { lines("a\r" + std::string("b\0c\n", 4)); }),
                  "a zero byte in line 2 of the_text");
  for (const char* end : {"", "\n", "\r", "\r\n"}) {
    EXPECT_EQ(lines(std::string(1 << 20, 'x') + end), Lines{std::string(1 << 20, 'x')});
    EXPECT_MENTIONS(refusal([&] { lines("\r" + std::string((1 << 20) + 1, 'x') + end); }),
                    "1 MiB, got a longer one: line 2 of the_text");
  }
}

}  // namespace
}  // namespace mnemosyne::io
