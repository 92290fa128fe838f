#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "mnemosyne/tasks/data/utf8.h"
#include "mnemosyne/tasks/data/word_data.h"
#include "tests/data_files.h"
#include "tests/testing.h"

namespace mnemosyne::tasks {
namespace {

using namespace std::string_literals;

using mnemosyne::testing::gzip;
using mnemosyne::testing::identical;
using mnemosyne::testing::real_data;
using mnemosyne::testing::refusal;
using mnemosyne::testing::TestFolder;

TEST(Words, AreNumberedByCountWithTheVocabularyOfTheTrainingText) {
  const TestFolder folder("words");
  const std::string train =
      folder.write("train", "the cat saw the <unk>\n\n  a cat\tsaw the dog\r\n");
  const std::string test = folder.write("test", "the bird saw\na <unk>");
  const WordData data = read_words(train, test);
  EXPECT_EQ(data.text.symbols,
            (std::vector<std::string>{"<unk>", "<eos>", "the", "cat", "saw", "a", "dog"}));
  EXPECT_EQ(data.text.vocabulary, 7);
  EXPECT_TRUE(
      identical(data.text.train, at::tensor({2, 3, 4, 2, 0, 1, 1, 5, 3, 4, 2, 6, 1}, at::kInt)));
  EXPECT_TRUE(identical(data.text.validation, at::tensor({2, 0, 4, 1, 5, 0, 1}, at::kInt)));
  EXPECT_EQ(data.unknown_in_validation, 2);
}

TEST(Words, BeyondTheLimitAreUnknown) {
  const TestFolder folder("limit");
  const std::string train = folder.write("train", "b a a b c d\n");
  const WordData data = read_words(train, train, {.max_vocabulary = 4});
  // b and a are as frequent; b came first.
  EXPECT_EQ(data.text.symbols, (std::vector<std::string>{"<unk>", "<eos>", "b", "a"}));
  EXPECT_TRUE(identical(data.text.train, at::tensor({2, 3, 3, 2, 0, 0, 1}, at::kInt)));
  EXPECT_THROW(read_words(train, train, {.max_vocabulary = 2}), InputError);
}

TEST(Words, MayBePackedAndLongerThanAnyBuffer) {
  const TestFolder folder("packed");
  std::string text;
  for (int i = 0; i < 30'000; ++i) text += "word" + std::to_string(i % 100) + (i % 7 ? " " : "\n");
  const std::string plain = folder.write("plain", text);
  // Two members one behind the other are one file.
  const std::string packed =
      folder.write("packed", gzip(text.substr(0, 70'001)) + gzip(text.substr(70'001)));
  const WordData expected = read_words(plain, plain), actual = read_words(packed, packed);
  EXPECT_EQ(expected.text.vocabulary, 102);
  EXPECT_EQ(expected.text.train.size(0), 30'000 + 30'000 / 7 + 1 + 1);
  EXPECT_TRUE(identical(actual.text.train, expected.text.train));
}

TEST(Words, RefuseWhatIsNoText) {
  const TestFolder folder("no_text");
  const std::string good = folder.write("good", "a b c\n");
  const auto message = [&](const std::string& bytes) {
    const std::string file = folder.write("file", bytes);
    const std::string text = refusal([&] { read_words(good, file); });
    EXPECT_MENTIONS(text, file);
    return text;
  };
  EXPECT_MENTIONS(message("fine\nnot \xff fine\n"), "expected UTF-8 text, got byte 0xff in line 2");
  EXPECT_MENTIONS(message("fine\rnot \xc3"), "byte 0xc3 in line 2");
  EXPECT_MENTIONS(message("a\n" + std::string(1025, 'x')), "1024 bytes, got one of 1025 in line 2");
  EXPECT_MENTIONS(message(std::string("a\0 \0b\0\n\0", 8)), "4 zero bytes (as UTF-16 has) among 8");
  const std::string packed = gzip(std::string(100'000, 'x'));
  EXPECT_MENTIONS(message(packed.substr(0, packed.size() - 9)), "ends too early");
  EXPECT_MENTIONS(message(packed + "rest"), "nothing behind");
  std::string corrupt = packed;
  corrupt[corrupt.size() - 6] ^= 1;
  EXPECT_MENTIONS(message(gzip("a b\n").replace(10, 4, "\xff\xff\xff\xff")), "corrupt");
  EXPECT_MENTIONS(refusal([&] { read_words(folder.write("empty", "\n\n"), good); }),
                  "a text with words, got none");
  EXPECT_MENTIONS(refusal([&] { read_words(folder.path() + "/nothing", good); }), "nothing");
}

TEST(Words, MayHoldControlCharactersAndAnyEndsOfLines) {
  const TestFolder folder("control");
  const std::string text = "\xef\xbb\xbfone\x01 two\rthree\v\x1b[0m\r\n\r\n\nfour\0five one\x01"s;
  const std::string file = folder.write("file", text);
  const WordData data = read_words(file, file);
  EXPECT_EQ(data.text.symbols, (std::vector<std::string>{"<unk>", "<eos>", "one\x01", "two",
                                                         "three", "\x1b[0m", "four\0five"s}));
  EXPECT_TRUE(identical(data.text.train, at::tensor({2, 3, 1, 4, 5, 1, 1, 1, 6, 2, 1}, at::kInt)));
  // One line of two megabytes, as in text8, whose characters fall on the edges of pieces.
  std::string line;
  for (int i = 0; i < 200'000; ++i) line += i % 3 == 0 ? "\u20ac\u00e9 " : "word\U0001f600 ";
  const std::string long_file = folder.write("long", line);
  const WordData long_data = read_words(long_file, long_file);
  EXPECT_EQ(long_data.text.train.size(0), 200'001);
  EXPECT_EQ(long_data.text.symbols,
            (std::vector<std::string>{"<unk>", "<eos>", "word\U0001f600", "\u20ac\u00e9"}));
}

TEST(Words, OfOneFileAreSplitAndKnowOnlyTheTrainingPart) {
  const TestFolder folder("one_file");
  std::string text;
  for (int i = 0; i < 45; ++i) text += i % 2 ? "a " : "b ";
  const std::string file = folder.write("file", text + "new b a new\n");
  const WordData data = read_words(file, WordOptions{});
  EXPECT_EQ(data.text.train.size(0), 45);
  EXPECT_EQ(data.text.symbols, (std::vector<std::string>{"<unk>", "<eos>", "b", "a"}));
  EXPECT_TRUE(identical(data.text.validation, at::tensor({0, 2, 3, 0, 1}, at::kInt)));
  EXPECT_EQ(data.unknown_in_validation, 2);
  EXPECT_EQ(read_words(file, WordOptions{.max_vocabulary = 3}).text.symbols.size(), 3u);
}

TEST(Words, Utf8IsCheckedAsTheStandardSays) {
  const auto whole = [](std::string_view text) {
    const auto character = first_character(text);
    return character && character->length == text.size() ? static_cast<int64_t>(character->point)
                                                         : -1;
  };
  EXPECT_EQ(whole("a"), 'a');
  EXPECT_EQ(whole("\r"), '\r');
  EXPECT_EQ(whole("\u00e9"), 0xe9);
  EXPECT_EQ(whole("\u20ac"), 0x20ac);
  EXPECT_EQ(whole("\U0001f600"), 0x1f600);
  EXPECT_EQ(whole("\xf4\x8f\xbf\xbf"), 0x10ffff);
  EXPECT_EQ(whole("\x7f"), 0x7f);
  for (const char* bad : {"", "\x80", "\xc3", "\xc0\xaf", "\xe2\x82", "\xed\xa0\x80",
                          "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "\xe0\x80\xaf"}) {
    EXPECT_FALSE(first_character(bad)) << bad;
  }
}

// 213,886 and 241,211 words, and the lines of the files.
TEST(Words, OfWikiText) {
  const std::string folder = real_data("wikitext2");
  if (folder.empty()) GTEST_SKIP() << "needs MNEMOSYNE_DATA with wikitext2";
  const WordData data = read_words(folder + "/valid.txt", folder + "/test.txt");
  EXPECT_EQ(data.text.train.size(0), 213'886 + 3'760);
  EXPECT_EQ(data.text.validation.size(0), 241'211 + 4'358);
  EXPECT_EQ(data.text.vocabulary, 10'000);
  EXPECT_EQ(data.text.symbols[2], "the");
}

}  // namespace
}  // namespace mnemosyne::tasks
