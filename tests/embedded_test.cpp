#include "mnemosyne/core/embedded.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

namespace mnemosyne {
namespace {

TEST(Embedded, UnknownNamesAreEmpty) {
  EXPECT_TRUE(embedded_file("no such file").empty());
  EXPECT_TRUE(embedded_file("").empty());
}

TEST(Embedded, ListsWhatItHolds) {
  const auto names = embedded_files();
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
  for (const auto& name : names) {
    const auto content = embedded_file(name);
    EXPECT_FALSE(content.empty()) << name;
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(content.data()) % 64, 0u) << name;
  }
}

TEST(Embedded, TheDigitsAreAWholeGzipFile) {
  const auto digits = embedded_file("digits.csv.gz");
  if (digits.empty()) GTEST_SKIP() << "configured without scikit-learn";
  ASSERT_GT(digits.size(), 50000u);
  EXPECT_EQ(digits.substr(0, 2), "\x1f\x8b");
  // A gzip file ends with the length of its content, here 1797 lines of 65 numbers.
  const auto* tail = reinterpret_cast<const unsigned char*>(digits.data() + digits.size() - 4);
  const uint32_t length = tail[0] | tail[1] << 8 | tail[2] << 16 | uint32_t{tail[3]} << 24;
  EXPECT_GT(length, 1797u * 65u * 2u);
  EXPECT_LT(length, 1797u * 65u * 4u);
}

}  // namespace
}  // namespace mnemosyne
