#include "mnemosyne/core/fields.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/attention_options.h"
#include "mnemosyne/nn/module_metadata.h"
#include "mnemosyne/nn/vit.h"

namespace mnemosyne {

struct PartOptions {
  double width = 0.1;
};

struct EveryOptions {
  bool flag = false;
  int64_t count = -1;
  uint64_t size = 1;
  std::string name = "a";
  std::vector<int64_t> counts = {1};
  std::vector<double> numbers = {};
  std::vector<std::string> names = {};
  std::optional<uint64_t> seed = {};
  std::optional<double> extent = 2.5;
  PartOptions part = {};
};

static void bind(Fields& visit, PartOptions& o) { visit("width", o.width); }

static void bind(Fields& visit, EveryOptions& o) {
  visit("flag", o.flag, "whether");
  visit("count", o.count);
  visit("size", o.size);
  visit("name", o.name);
  visit("counts", o.counts);
  visit("numbers", o.numbers);
  visit("names", o.names);
  visit("seed", o.seed);
  visit("extent", o.extent);
  bind(visit, o.part);
}

struct TwiceOptions {
  PartOptions first = {}, second = {};
};

static void bind(Fields& visit, TwiceOptions& o) {
  bind(visit, o.first);
  bind(visit, o.second);
}

struct GrownOptions {
  double width = 0.1;
  bool guard = true;
};

static void bind(Fields& visit, GrownOptions& o) {
  visit("width", o.width);
  visit.later("guard", o.guard);
}

namespace {

std::string refusal(const std::string& json) {
  try {
    read_options<EveryOptions>("every", json);
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

TEST(Fields, AreWrittenSortedAndReadBack) {
  EveryOptions options{.flag = true,
                       .count = -7,
                       .size = ~uint64_t{0},
                       .name = "x\"y",
                       .counts = {},
                       .numbers = {0.1, 1e300},
                       .names = {"p", "q"},
                       .seed = 5,
                       .extent = {},
                       .part = {1.0 / 3.0}};
  const std::string json = write_options(options);
  EXPECT_EQ(json,
            "{\"count\": -7, \"counts\": [], \"extent\": null, \"flag\": true, "
            "\"name\": \"x\\\"y\", \"names\": [\"p\",\"q\"], \"numbers\": [0.1,1e+300], "
            "\"seed\": 5, \"size\": 18446744073709551615, \"width\": 0.3333333333333333}");
  const auto again = read_options<EveryOptions>("every", json);
  EXPECT_EQ(write_options(again), json);
  EXPECT_EQ(again.part.width, options.part.width);
  EXPECT_EQ(again.seed, options.seed);
  EXPECT_FALSE(again.extent.has_value());
}

TEST(Fields, KeepWhatIsNotNamed) {
  const auto options =
      read_options("every", R"({"width": 2, "seed": null})", EveryOptions{.count = 3, .seed = 4});
  EXPECT_EQ(options.count, 3);
  EXPECT_EQ(options.part.width, 2.0);
  EXPECT_FALSE(options.seed.has_value());
  EXPECT_EQ(options.extent, 2.5);
}

TEST(Fields, RefuseInOneLine) {
  EXPECT_EQ(refusal("[1]"), "[every] expected options as a JSON object, got \"[1]\"");
  EXPECT_EQ(refusal("{"), "[every] expected options as a JSON object, got \"{\"");
  EXPECT_EQ(refusal(R"({"flag": 1})"),
            "[every] expected option \"flag\" to be true or false, got 1");
  EXPECT_EQ(refusal(R"({"count": 1.5})"),
            "[every] expected option \"count\" to be a whole number, got 1.5");
  EXPECT_EQ(refusal(R"({"count": 9223372036854775808})"),
            "[every] expected option \"count\" to be a whole number, got 9223372036854775808");
  EXPECT_EQ(refusal(R"({"size": -1})"),
            "[every] expected option \"size\" to be a whole number of 0 or more, got -1");
  EXPECT_EQ(refusal(R"({"numbers": [1, "2"]})"),
            "[every] expected option \"numbers\" to be a list, each of it a number, got [1,\"2\"]");
  EXPECT_EQ(refusal(R"({"extent": "far"})"),
            "[every] expected option \"extent\" to be a number or null, got \"far\"");
  EXPECT_EQ(refusal(R"({"colour": 1})"),
            "[every] expected options among count, counts, extent, flag, name, names, numbers, "
            "seed, size, width, got \"colour\"");
}

TEST(Fields, TellWhatTheyAreFor) {
  EveryOptions options;
  const Fields fields = fields_of(options);
  EXPECT_EQ(fields.begin()->description, "whether");
  EXPECT_EQ(fields.names().back(), "width");
}

TEST(Fields, OfOneNameAreAMistakeOfTheVisitor) {
  TwiceOptions options;
  EXPECT_THROW(fields_of(options), std::logic_error);
}

TEST(Fields, OfAnAttentionReachItsParts) {
  const auto options = read_options<nn::AttentionOptions>(
      "attention",
      R"({"exact_length": 5, "spectrum": "local", "window": "tent", "initial_weight": 2.0})");
  EXPECT_EQ(options.linear.exact_length, 5);
  EXPECT_EQ(options.fourier.kind, "local");
  EXPECT_EQ(options.fourier.window, "tent");
  EXPECT_EQ(options.damped.initial_weight, 2.0);
  EXPECT_EQ(options.fourier.coupling, "multiplicative") << "as models have it";
}

TEST(Fields, OfAModelAreInItsMetadata) {
  const nn::ViT model({.patch_size = 4, .attention = {.position = "none"}, .seed = 3});
  const std::string text = nn::module_metadata(*model).at("module");
  EXPECT_NE(text.find("\"patch_size\":4"), std::string::npos) << text;
  EXPECT_NE(text.find("\"seed\":3"), std::string::npos) << text;
  EXPECT_NE(text.find("\"exact_length\":0"), std::string::npos) << text;
  EXPECT_NE(text.find("\"initial_amplitude\":1.0"), std::string::npos) << text;
}

// What was written before an option came is what is written after it.
TEST(Fields, AnOptionThatCameLaterIsWrittenWhereItIsNotTheDefault) {
  EXPECT_EQ(write_options(GrownOptions{}), R"({"width": 0.1})");
  EXPECT_EQ(write_options(GrownOptions{.guard = false}), R"({"guard": false, "width": 0.1})");
  EXPECT_FALSE(read_options<GrownOptions>("grown", R"({"guard": false})").guard);
  EXPECT_TRUE(read_options<GrownOptions>("grown", R"({"guard": true})").guard);
}

}  // namespace
}  // namespace mnemosyne
