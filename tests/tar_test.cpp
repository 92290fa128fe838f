#include "mnemosyne/io/tar.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/data_files.h"

namespace mnemosyne::io {
namespace {

using mnemosyne::testing::octal;
using mnemosyne::testing::refusal;
using mnemosyne::testing::tar_header;
using mnemosyne::testing::tar_member;

using Members = std::vector<std::pair<std::string, std::string>>;

Members members(const std::string& bytes) {
  Members result;
  TarReader archive(open_bytes(bytes, "a.tar"));
  while (archive.next()) {
    const std::string name = archive.member();
    result.emplace_back(name, archive.content(10'000));
  }
  return result;
}

std::string entry(const std::string& name, char type, const std::string& content) {
  return tar_header(name, octal(content.size()), type) + content +
         std::string((512 - content.size() % 512) % 512, '\0');
}

/// "LENGTH KEY=VALUE\\n", where the length counts its own digits.
std::string record(const std::string& key, const std::string& value) {
  const std::string rest = " " + key + "=" + value + "\n";
  size_t length = rest.size();
  while (length != rest.size() + std::to_string(length).size()) {
    length = rest.size() + std::to_string(length).size();
  }
  return std::to_string(length) + rest;
}

// Beside Python's tarfile: tests/python/test_xyz_files.py.
TEST(Tar, FollowsExtendedHeaders) {
  const std::string far(120, 'd'), name = far + "/a.xyz";
  EXPECT_EQ(members(entry("x", 'x', record("mtime", "1.5") + record("path", name)) +
                    tar_member(far.substr(0, 100), "abc") + tar_member("b", "")),
            (Members{{name, "abc"}, {"b", ""}}));
  // The size, too: 600 bytes where the header has none.
  const std::string text(600, 'x');
  EXPECT_EQ(members(entry("x", 'x', record("size", "600")) + tar_header("big", octal(0)) + text +
                    std::string(1024 - 600, '\0') + tar_member("next", "1")),
            (Members{{"big", text}, {"next", "1"}}));
  // Of all files; what a file has of its own comes first.
  EXPECT_EQ(members(entry("g", 'g', record("comment", "0123") + record("path", "all")) +
                    tar_member("a", "1") + entry("x", 'x', record("path", "own")) +
                    tar_member("b", "2") + tar_member("c", "3")),
            (Members{{"all", "1"}, {"own", "2"}, {"all", "3"}}));
  // Of the next entry alone, whatever it is.
  EXPECT_EQ(members(entry("x", 'x', record("path", name)) + entry("folder/", '5', "") +
                    entry("././@LongLink", 'L', name) + entry("link", '2', "") +
                    tar_member("short", "end")),
            (Members{{"short", "end"}}));
}

TEST(Tar, TakesNamesOfAnyLength) {
  for (const size_t size : {99, 100, 101, 255, 256, 5000}) {
    const std::string name = std::string(size - 4, 'n') + ".xyz";
    EXPECT_EQ(members(entry("././@LongLink", 'L', name + '\0') + tar_member("short", "1")),
              (Members{{name, "1"}}));
    EXPECT_EQ(members(entry("x", 'x', record("path", name)) + tar_member("short", "1")),
              (Members{{name, "1"}}));
  }
}

TEST(Tar, TakesWhatOtherProgramsWrite) {
  // A size of GNU's binary form, a contiguous file, a folder of the first tar, and no content
  // behind a folder or link that has a size.
  const std::string binary("\x80\0\0\0\0\0\0\0\0\0\0\x03", 12);
  EXPECT_EQ(
      members(tar_header("a", binary) + "abc" + std::string(509, '\0') + entry("b", '7', "def") +
              tar_header("old/", octal(0), '\0') + tar_header("c", octal(700), '1') +
              tar_header("d/", octal(700), '5') + tar_member("e", "ghi")),
      (Members{{"a", "abc"}, {"b", "def"}, {"e", "ghi"}}));
  // A checksum of signed bytes.
  std::string header = tar_header("\xff", octal(0));
  header.replace(148, 8, 8, ' ');
  int sum = 0;
  for (const char c : header) sum += static_cast<signed char>(c);
  char digits[8];
  std::snprintf(digits, sizeof digits, "%06o", static_cast<unsigned>(sum));
  header.replace(148, 7, std::string(digits, 7));
  EXPECT_EQ(members(header), (Members{{"\xff", ""}}));
}

TEST(Tar, ReadsFilesAndPassesOverTheRest) {
  const std::string longest(200, 'n');
  const std::string text = std::string(600, 'x');
  const std::string bytes = tar_header("folder/", octal(0), '5') + tar_member("folder/a", text) +
                            tar_member("empty", "") + tar_header("././@LongLink", octal(201), 'L') +
                            longest + std::string(512 - 200, '\0') + tar_member("short", "end") +
                            std::string(1024, '\0') + "whatever";
  TarReader archive(open_bytes(bytes, "a.tar"));
  ASSERT_TRUE(archive.next());
  EXPECT_EQ(archive.member(), "folder/a");
  EXPECT_EQ(archive.content(600), text);
  ASSERT_TRUE(archive.next());
  EXPECT_EQ(archive.content(600), "");
  ASSERT_TRUE(archive.next());
  EXPECT_EQ(archive.member(), longest);
  EXPECT_EQ(archive.content(600), "end");
  EXPECT_FALSE(archive.next());
}

TEST(Tar, RefusesDamageAndLies) {
  const auto refused = [](const std::string& bytes) {
    const std::string message = refusal([&] {
      TarReader archive(open_bytes(bytes, "a.tar"));
      while (archive.next()) archive.content(1000);
    });
    EXPECT_MENTIONS(message, "in a.tar");
    return message;
  };
  const std::string good = tar_member("a", "abc");
  EXPECT_MENTIONS(refused("no tar at all"), "a tar header of 512 bytes, got 13");
  EXPECT_MENTIONS(refused(std::string(512, 'x')), "checksum");
  EXPECT_MENTIONS(refused(good.substr(0, 514)), "a file of 3 bytes, got the end after 2");
  EXPECT_MENTIONS(refused(good.substr(0, 600)), "the end of the archive");
  EXPECT_MENTIONS(refused(tar_header("a", octal(900)) + "abc"), "got the end after 3");
  EXPECT_MENTIONS(refused(tar_header("a", octal(1001)) + "abc"),
                  "at most 1000 bytes, got one of 1001");
  EXPECT_MENTIONS(refused(tar_header("a", "77777777777")), "at most 4 GiB");
  EXPECT_MENTIONS(refused(tar_header("a", "77777777777", '5')), "at most 4 GiB");
  EXPECT_MENTIONS(refused(tar_header("a", std::string("\x80\xff\xff\xff", 4))),
                  "the size of a file");
  EXPECT_MENTIONS(refused(tar_header("a", "-0000000001")), "the size of a file");
  EXPECT_MENTIONS(refused(tar_header("a\n\x1b", octal(900))), "\"a\\x0a\\x1b\"");
}

TEST(Tar, RefusesBadExtendedHeaders) {
  const auto refused = [](const std::string& bytes) {
    return refusal([&] { members(bytes + tar_member("a", "abc")); });
  };
  for (const char* records : {"abc", "8 path=a\n", "12 path=abc", "-8 path=a\n", "1 \n", " a=b\n",
                              "99999999999999999999 a=b\n"}) {
    EXPECT_MENTIONS(refused(entry("x", 'x', records)), "a record of a pax header");
    EXPECT_MENTIONS(refused(entry("g", 'g', records)), "a record of a pax header");
  }
  for (const char* size : {"", "-1", "0x10", "1.5", "99999999999999999999"}) {
    EXPECT_MENTIONS(refused(entry("x", 'x', record("size", size))), "the size of a file");
  }
  EXPECT_MENTIONS(refused(entry("x", 'x', record("size", "18446744073709551615"))),
                  "at most 4 GiB");
  EXPECT_MENTIONS(refused(entry("x", 'x', record("size", "4000"))), "got the end after");
  EXPECT_MENTIONS(refused(entry("x", 'x', record("GNU.sparse.major", "1"))),
                  "the sparse file \"a\"");
  EXPECT_MENTIONS(refused(tar_header("s", octal(0), 'S')), "the sparse file \"s\"");
  EXPECT_MENTIONS(refused(tar_header("x", octal((1 << 20) + 1), 'x')), "at most 1 MiB");
  EXPECT_MENTIONS(refused(tar_header("L", octal((1 << 20) + 1), 'L')), "at most 1 MiB");
}

}  // namespace
}  // namespace mnemosyne::io
