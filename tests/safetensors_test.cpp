#include "mnemosyne/io/safetensors.h"

#include <cstring>
#include <filesystem>
#include <fstream>

#include "mnemosyne/core/error.h"
#include "mnemosyne/io/file.h"
#include "testing.h"

namespace mnemosyne::io {
namespace {

std::string temporary(const std::string& name) { return testing::temporary_path(name); }

// A file with this header and `data_bytes` zeros after it.
std::string with_header(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + std::string(data_bytes, '\0');
}

TEST(Safetensors, RoundTripKeepsOrderDtypesShapesValuesAndMetadata) {
  const NamedTensors tensors{{"z.half", at::randn({3}).to(at::kHalf)},
                             {"a.float", at::randn({2, 3}).t()},
                             {"bfloat", at::randn({5}).to(at::kBFloat16)},
                             {"double", at::randn({2, 1, 2}, at::kDouble)},
                             {"long", at::tensor({int64_t{-5}, int64_t{1} << 60})},
                             {"int", at::arange(3, at::kInt)},
                             {"short", at::arange(3, at::kShort)},
                             {"char", at::arange(3, at::kChar)},
                             {"byte", at::arange(3, at::kByte)},
                             {"bool", at::tensor({1, 0, 1}).to(at::kBool)},
                             {"scalar", at::scalar_tensor(7.5)},
                             {"empty", at::empty({0, 4})}};
  const std::string path = temporary("round_trip.safetensors");
  write_safetensors(path, tensors, {{"rule", "adam"}, {"text", "line\n\"quoted\""}});
  const TensorFile read = read_safetensors(path);
  ASSERT_EQ(read.tensors.size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(read.tensors[i].first, tensors[i].first);
    EXPECT_TRUE(testing::identical(read.tensors[i].second, tensors[i].second)) << tensors[i].first;
  }
  EXPECT_EQ(read.metadata.at("text"), "line\n\"quoted\"");
  EXPECT_EQ(read.metadata.size(), 2u);
}

TEST(Safetensors, WritingReplacesTheWholeFileAndLeavesNothingBeside) {
  const std::string folder = temporary("folder");
  std::filesystem::remove_all(folder);
  std::filesystem::create_directory(folder);
  write_safetensors(folder + "/w", {{"a", at::ones({1000})}});
  write_safetensors(folder + "/w", {{"b", at::ones({1})}});
  EXPECT_EQ(read_safetensors(folder + "/w").tensors.size(), 1u);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 1);
}

TEST(Safetensors, RefusesToWriteWhatCouldNotBeRead) {
  const std::string path = temporary("unwritable.safetensors");
  EXPECT_THROW(write_safetensors(path, {{"a", at::ones({1})}, {"a", at::ones({1})}}), InputError);
  EXPECT_THROW(write_safetensors(path, {{"__metadata__", at::ones({1})}}), InputError);
  EXPECT_THROW(write_safetensors(path, {{"a", at::ones({1}, at::kComplexFloat)}}), InputError);
  EXPECT_THROW(write_safetensors(path, {{"\xff", at::ones({1})}}), InputError);
  EXPECT_THROW(write_safetensors("/nowhere/at/all", {{"a", at::ones({1})}}), InputError);
}

struct Hostile {
  std::string name;
  std::string bytes;
  std::string found;  // has to stand in the message
};

std::string tensor(const std::string& shape, const std::string& offsets,
                   const std::string& dtype = "F32") {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

std::vector<Hostile> hostile_files() {
  const std::string four = tensor("[1]", "[0,4]");
  const std::string deep(100000, '[');
  return {
      {"empty", "", "got 0"},
      {"short_length", "\x01\x02", "got 2"},
      {"header_longer_than_file", std::string("\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10),
       "got 9223372036854775807"},
      {"truncated_data", with_header("{\"a\":" + tensor("[2]", "[0,8]") + "}", 7),
       "within 7 bytes"},
      {"trailing_bytes", with_header("{\"a\":" + four + "}", 5),
       "expected 4 bytes of tensors, got 5"},
      {"no_json", with_header("{\"a\":", 0), "JSON"},
      {"not_an_object", with_header("[1]", 0), "array"},
      {"deep", with_header(deep, 0), "nested"},
      {"duplicate", with_header("{\"a\":" + four + ",\"a\":" + four + "}", 4), "\"a\" twice"},
      {"unknown_dtype", with_header("{\"a\":" + tensor("[1]", "[0,4]", "C64") + "}", 4), "\"C64\""},
      {"dtype_no_text", with_header(R"({"a":{"dtype":3,"shape":[],"data_offsets":[0,4]}})", 4),
       "number"},
      {"no_shape", with_header(R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4), "shape"},
      {"negative_size", with_header("{\"a\":" + tensor("[-1]", "[0,4]") + "}", 4), "-1"},
      {"fractional_size", with_header("{\"a\":" + tensor("[1.5]", "[0,4]") + "}", 4), "1.5"},
      {"product_overflows",
       with_header("{\"a\":" + tensor("[4294967296,4294967296,4]", "[0,0]") + "}", 0),
       "4294967296"},
      {"huge_beside_zero",
       with_header("{\"a\":" + tensor("[0,4611686018427387904,8]", "[0,0]") + "}", 0),
       "4611686018427387904"},
      {"huge_but_no_data", with_header("{\"a\":" + tensor("[1000000000]", "[0,4]") + "}", 4),
       "expected 4000000000 bytes"},
      {"overlap",
       with_header("{\"a\":" + tensor("[2]", "[0,8]") + ",\"b\":" + tensor("[2]", "[4,12]") + "}",
                   12),
       "begin at byte 8, got 4"},
      {"hole", with_header("{\"a\":" + four + ",\"b\":" + tensor("[1]", "[8,12]") + "}", 12),
       "begin at byte 4, got 8"},
      {"backwards", with_header("{\"a\":" + tensor("[1]", "[4,0]") + "}", 4), "[4,0]"},
      {"beyond", with_header("{\"a\":" + tensor("[1]", "[4,8]") + "}", 4), "[4,8]"},
      {"metadata_no_text", with_header(R"({"__metadata__":{"a":1}})", 0), "number"},
      {"bad_utf8", with_header("{\"\xff\":" + four + "}", 4), "JSON"},
      {"bool_of_seven", with_header("{\"a\":" + tensor("[1]", "[0,1]", "BOOL") + "}", 0) + "\x07",
       "another byte"},
  };
}

class HostileSafetensors : public ::testing::TestWithParam<Hostile> {};

TEST_P(HostileSafetensors, IsRefusedWithOneLineThatNamesTheFile) {
  try {
    parse_safetensors(GetParam().bytes, "some.file");
    FAIL() << "accepted";
  } catch (const InputError& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("some.file"), std::string::npos) << message;
    EXPECT_NE(message.find(GetParam().found), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_LT(message.size(), 300u) << message;
  }
}

INSTANTIATE_TEST_SUITE_P(All, HostileSafetensors, ::testing::ValuesIn(hostile_files()),
                         [](const auto& info) { return info.param.name; });

TEST(Safetensors, EveryTruncationAndEveryFlippedHeaderByteIsHandled) {
  const std::string path = temporary("flipped.safetensors");
  write_safetensors(path, {{"a", at::ones({2, 3})}, {"b", at::ones({4}).to(at::kHalf)}});
  const std::string good = read_file(path);
  for (size_t length = 0; length < good.size(); ++length) {
    EXPECT_THROW(parse_safetensors(good.substr(0, length), "cut"), InputError) << length;
  }
  for (size_t i = 0; i < good.size(); ++i) {
    for (const int flip : {0x01, 0x02, 0x10, 0x80}) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ flip);
      try {
        parse_safetensors(bad, "flipped");
      } catch (const InputError&) {  // any other exception fails the test
      }
    }
  }
}

TEST(Safetensors, NamesMissingFilesAndFolders) {
  for (const std::string path : {"/nowhere.safetensors", "/tmp"}) {
    try {
      read_safetensors(path);
      FAIL();
    } catch (const InputError& error) {
      EXPECT_NE(std::string(error.what()).find(path), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace mnemosyne::io
