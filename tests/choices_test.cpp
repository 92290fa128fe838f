#include "mnemosyne/core/choices.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "mnemosyne/core/error.h"

namespace mnemosyne {
namespace {

std::string text_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

TEST(Choices, GiveWhatANameStandsFor) {
  const Choices<int> numbers = {{"two", 2}, {"one", 1}};
  EXPECT_EQ(one_of("number", "one", numbers), 1);
  EXPECT_EQ(text_of([&] { one_of("number", "three", numbers); }),
            "[number] expected one of two, one, got \"three\"");
  EXPECT_EQ(text_of([] { one_of("attention", "sparse", {"linear", "softmax"}, "kind"); }),
            "[attention] expected kind to be one of linear, softmax, got \"sparse\"");
  EXPECT_EQ(text_of([] { one_of("attention", "softmax", {"linear", "softmax"}); }), "");
}

TEST(Choices, KeepErrorsInOneLine) {
  EXPECT_EQ(text_of([] { one_of("x", "a\nb\"\xff", {"y"}); }),
            "[x] expected one of y, got \"a\\x0ab\\x22\\xff\"");
  const std::string shown = text_of([] { one_of("x", std::string(1000, 'a'), {"y"}); });
  EXPECT_LT(shown.size(), 120U);
}

TEST(Choices, OptionsAreRefusedWithTheirValue) {
  EXPECT_EQ(text_of([] { check_option(false, "sgd", "`momentum` in [0, 1)", 1.5); }),
            "[sgd] expected `momentum` in [0, 1), got 1.5");
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(text_of([&] { check_option(nan >= 0, "sgd", "`lr` >= 0", nan); }),
            "[sgd] expected `lr` >= 0, got nan");
  EXPECT_EQ(text_of([] { check_option(true, "sgd", "anything", 0); }), "");
}

}  // namespace
}  // namespace mnemosyne
