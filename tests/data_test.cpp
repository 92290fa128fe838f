#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "mnemosyne/core/error.h"
#include "mnemosyne/io/byte_source.h"
#include "mnemosyne/tasks/data/cifar.h"
#include "mnemosyne/tasks/data/datasets.h"
#include "mnemosyne/tasks/data/digits.h"
#include "mnemosyne/tasks/data/idx.h"
#include "mnemosyne/tasks/data/text_data.h"
#include "tests/testing.h"

namespace mnemosyne::tasks {
namespace {

using mnemosyne::testing::close;
using mnemosyne::testing::identical;

/// What the InputError of `action` says; fails when there is none.
std::string refusal(const std::function<void()>& action) {
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

std::string big_endian(uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift & 0xff);
  return bytes;
}

std::string little_endian(uint32_t value, int count) {
  std::string bytes;
  for (int i = 0; i < count; ++i) bytes += static_cast<char>(value >> 8 * i & 0xff);
  return bytes;
}

/// A gzip file with one stored block, made without zlib (RFC 1951 and 1952).
std::string gzip_by_hand(const std::string& content) {
  uint32_t crc = 0xffffffff;
  for (const char c : content) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
  }
  const auto size = static_cast<uint32_t>(content.size());
  return std::string("\x1f\x8b\x08\0\0\0\0\0\0\xff", 10) + '\x01' + little_endian(size, 2) +
         little_endian(~size, 2) + content + little_endian(~crc, 4) + little_endian(size, 4);
}

std::string idx_images(int count, int rows, int columns) {
  std::string bytes =
      big_endian(0x803) + big_endian(count) + big_endian(rows) + big_endian(columns);
  for (int i = 0; i < count * rows * columns; ++i) bytes += static_cast<char>(i * 7 % 251);
  return bytes;
}

std::string idx_labels(const std::string& labels) {
  return big_endian(0x801) + big_endian(static_cast<uint32_t>(labels.size())) + labels;
}

class DataFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::temp_directory_path() /
              (std::string("mnemosyne_data_") + info->name() + "_" +
               std::to_string(reinterpret_cast<uintptr_t>(this)));
    std::filesystem::create_directories(folder_);
  }

  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  std::string write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path(name), std::ios::binary) << bytes;
    return path(name);
  }

  void write_idx(const std::string& suffix, const std::function<std::string(std::string)>& pack) {
    write("train-images-idx3-ubyte" + suffix, pack(idx_images(4, 4, 4)));
    write("train-labels-idx1-ubyte" + suffix, pack(idx_labels({"\0\1\2\x9", 4})));
    write("t10k-images-idx3-ubyte" + suffix, pack(idx_images(2, 4, 4)));
    write("t10k-labels-idx1-ubyte" + suffix, pack(idx_labels({"\3\4", 2})));
  }

  std::filesystem::path folder_;
};

TEST_F(DataFolder, GzipIsToldByItsFirstBytesAndUnpacked) {
  const std::string content = "a text that is long enough";
  EXPECT_EQ(io::read_unpacked(write("plain.gz", content)), content);
  EXPECT_EQ(io::read_unpacked(write("packed", gzip_by_hand(content))), content);
  EXPECT_EQ(io::read_unpacked(write("two", gzip_by_hand("one ") + gzip_by_hand("two"))), "one two");
  EXPECT_EQ(io::read_unpacked(write("empty", "")), "");
}

TEST_F(DataFolder, DamagedGzipIsRefusedByName) {
  const std::string good = gzip_by_hand("a text that is long enough");
  for (size_t length = 2; length < good.size(); ++length) {
    const std::string file = write("short", good.substr(0, length));
    EXPECT_MENTIONS(refusal([&] { io::read_unpacked(file); }), file);
  }
  std::string flipped = good;
  flipped[20] ^= 1;
  const std::string corrupt = write("corrupt", flipped);
  EXPECT_MENTIONS(refusal([&] { io::read_unpacked(corrupt); }), "corrupt");
  const std::string longer = write("longer", good + "rest");
  EXPECT_MENTIONS(refusal([&] { io::read_unpacked(longer); }), "which has more");
}

TEST_F(DataFolder, SizesAreCapped) {
  const std::string packed = write("packed", gzip_by_hand(std::string(5000, 'x')));
  EXPECT_MENTIONS(refusal([&] { io::read_unpacked(packed, 4999); }), "at most 4999 bytes");
  const auto inside = io::open_bytes(std::string(5000, 'x'), "name");
  EXPECT_MENTIONS(refusal([&] { io::read_all(*inside, 100); }), "name");
  EXPECT_EQ(io::read_unpacked(packed, 6000).size(), 5000u);
}

TEST_F(DataFolder, AMissingFileIsNamed) {
  EXPECT_MENTIONS(refusal([&] { io::read_unpacked(path("nothing")); }), path("nothing"));
  EXPECT_MENTIONS(refusal([&] { load_text(path("input.txt")); }), path("input.txt"));
  EXPECT_MENTIONS(refusal([&] { load_idx(folder_.string()); }), "train-images-idx3-ubyte");
  EXPECT_MENTIONS(refusal([&] { load_cifar(folder_.string()); }), "data_batch_1.bin");
}

TEST(Idx, ReadsImagesAndLabels) {
  const at::Tensor images = parse_idx_images(idx_images(3, 2, 4), "file");
  EXPECT_EQ(images.sizes(), at::IntArrayRef({3, 1, 2, 4}));
  EXPECT_EQ(images[1][0][1][2].item<int>(), (8 + 4 + 2) * 7 % 251);
  const at::Tensor labels = parse_idx_labels(idx_labels({"\7\0\x9", 3}), "file", 10);
  EXPECT_TRUE(identical(labels, at::tensor({7, 0, 9}, at::kLong)));
}

TEST(Idx, RefusesWhatDoesNotFit) {
  const std::string good = idx_images(3, 2, 4);
  const auto images = [](std::string bytes) {
    return refusal([&] { parse_idx_images(bytes, "the_file"); });
  };
  for (const std::string& bad : {std::string(), good.substr(0, 15), good.substr(0, 30), good + "x",
                                 big_endian(0x802) + good.substr(4)}) {
    EXPECT_MENTIONS(images(bad), "the_file");
  }
  EXPECT_MENTIONS(images(big_endian(0x801) + good.substr(4)), "got 0x00000801");
  EXPECT_MENTIONS(images(good + "x"), "expected 24 bytes behind the header, got 25");
  // Sizes whose product is beyond 64 bits, and none at all.
  const std::string huge = big_endian(0xffffffff);
  EXPECT_MENTIONS(images(big_endian(0x803) + huge + huge + huge), "got 4294967295");
  EXPECT_MENTIONS(images(big_endian(0x803) + huge + big_endian(28) + big_endian(28)), "got 0");
  EXPECT_MENTIONS(images(big_endian(0x803) + big_endian(0) + big_endian(28) + big_endian(28)),
                  "at least one example");
  EXPECT_MENTIONS(refusal([] { parse_idx_labels(idx_labels({"\1\xa", 2}), "f", 10); }),
                  "labels below 10, got 10");
}

TEST_F(DataFolder, AnIdxFolderMayBePlainOrPacked) {
  write_idx("", [](const std::string& bytes) { return bytes; });
  const auto plain = load_idx(folder_.string());
  EXPECT_EQ(plain->train.size(), 4);
  EXPECT_EQ(plain->test.size(), 2);
  const at::Tensor pixels = plain->normalize(plain->train.images);
  EXPECT_NEAR(pixels.mean().item<float>(), 0.0, 1e-5);
  EXPECT_NEAR(pixels.std(/*unbiased=*/false).item<float>(), 1.0, 1e-5);
  std::filesystem::create_directories(folder_ / "packed");
  folder_ /= "packed";
  write_idx(".gz", gzip_by_hand);
  const auto packed = load_idx(folder_.string());
  folder_ = folder_.parent_path();
  EXPECT_TRUE(identical(packed->train.images, plain->train.images));
  EXPECT_TRUE(identical(packed->test.labels, plain->test.labels));
}

TEST_F(DataFolder, PoolingTakesMeans) {
  write_idx("", [](const std::string& bytes) { return bytes; });
  const auto full = load_idx(folder_.string()), pooled = load_idx(folder_.string(), 2);
  const at::Tensor means = at::avg_pool2d(full->train.images.to(at::kFloat), {2, 2});
  EXPECT_TRUE(close(pooled->train.images, means, {.rtol = 0, .atol = 0.5}));
  EXPECT_MENTIONS(refusal([&] { load_idx(folder_.string(), 3); }), "divisible by 3");
}

TEST_F(DataFolder, CountsOfImagesAndLabelsHaveToAgree) {
  write_idx("", [](const std::string& bytes) { return bytes; });
  const std::string labels = write("train-labels-idx1-ubyte", idx_labels({"\1\2\3", 3}));
  const std::string text = refusal([&] { load_idx(folder_.string()); });
  EXPECT_MENTIONS(text, "one label for each of 4 images, got 3 labels");
  EXPECT_MENTIONS(text, labels);
}

TEST_F(DataFolder, LoadedSetsAreSharedAndThenReleased) {
  write_idx("", [](const std::string& bytes) { return bytes; });
  auto first = load_idx(folder_.string());
  EXPECT_EQ(first, load_idx(folder_.string()));
  EXPECT_NE(first, load_idx(folder_.string(), 2));
  const std::weak_ptr<const ImageData> watch = first;
  first.reset();
  EXPECT_TRUE(watch.expired());
}

TEST_F(DataFolder, CifarTakesTheBatchesThatThereAre) {
  const auto record = [](char label, char pixel) { return label + std::string(3072, pixel); };
  write("data_batch_1.bin", record(3, 10) + record(9, 20));
  write("data_batch_4.bin.gz", gzip_by_hand(record(0, 30)));
  write("test_batch.bin", record(1, 40));
  const auto data = load_cifar(folder_.string());
  EXPECT_TRUE(identical(data->train.labels, at::tensor({3, 9, 0}, at::kLong)));
  EXPECT_EQ(data->train.images.sizes(), at::IntArrayRef({3, 3, 32, 32}));
  EXPECT_EQ(data->train.images[2][1][5][5].item<int>(), 30);
  EXPECT_NEAR(data->mean[0].item<float>(), 20.0, 1e-4);
}

TEST(Cifar, RefusesPartsOfRecordsAndWrongLabels) {
  EXPECT_MENTIONS(refusal([] { parse_cifar("", "f"); }), "got 0 in f");
  EXPECT_MENTIONS(refusal([] { parse_cifar(std::string(3072, 0), "f"); }), "got 3072");
  EXPECT_MENTIONS(refusal([] { parse_cifar('\xa' + std::string(3072, 0), "f"); }),
                  "labels below 10, got 10");
}

TEST(Digits, AreSplitWithoutOverlapAndBalanced) {
  const auto data = digits();
  EXPECT_EQ(data->train.size(), 1500);
  EXPECT_EQ(data->test.size(), 297);
  EXPECT_EQ(data->train.images.max().item<int>(), 16);
  // Every class has its share in both parts, which the file's own order does not give.
  for (const ImageSet* part : {&data->train, &data->test}) {
    const at::Tensor counts = at::bincount(part->labels, {}, 10);
    EXPECT_GT(counts.min().item<int64_t>(), part->size() / 20);
  }
  EXPECT_NEAR(data->normalize(data->train.images).mean().item<float>(), 0.0, 1e-4);
}

TEST(Digits, ReadAndRefuseLines) {
  std::string line;
  for (int i = 0; i < 64; ++i) line += std::to_string(i % 17) + ",";
  const std::string good = line + "7\n" + line + "7\r\n" + line + "7";
  const ImageData data = parse_digits(good, 2);
  EXPECT_EQ(data.test.size(), 1);
  EXPECT_EQ(data.test.labels[0].item<int>(), 7);
  EXPECT_EQ(data.test.images[0][0][1][2].item<int>(), 10);
  EXPECT_MENTIONS(refusal([&] { parse_digits(good, 3); }), "more than 3 images, got 3");
  for (const std::string& bad :
       {line + "10", line, line + "7,1", "17," + line.substr(2) + "1", "a" + line + "1",
        "\n" + line + "1", "-1," + line.substr(2) + "1"}) {
    EXPECT_MENTIONS(refusal([&] { parse_digits(good + "\n" + bad + "\n", 2); }), "in line 4");
  }
}

TEST(Text, NumbersItsCharacters) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += std::vector<std::string>{"c", "a", "b", "\u00e9"}[i % 4];
  const TextData data = encode_text(text, "file");
  EXPECT_EQ(data.vocabulary, 4);
  EXPECT_EQ(data.symbols, (std::vector<std::string>{"a", "b", "c", "\u00e9"}));
  EXPECT_EQ(data.train.size(0), 900);
  EXPECT_EQ(data.validation.size(0), 100);
  EXPECT_TRUE(identical(data.train.narrow(0, 0, 4), at::tensor({2, 0, 1, 3}, at::kByte)));
  EXPECT_MENTIONS(refusal([] { encode_text("short", "file"); }), "file");
  EXPECT_MENTIONS(refusal([] { encode_text(std::string(2000, 'x'), "file"); }), "1 of them");
}

TEST(Text, MayHaveAnyAlphabet) {
  // All control characters, zero included, with carriage returns kept as they are.
  std::string control;
  for (int i = 0; i < 1280; ++i) control += static_cast<char>(i % 128);
  const TextData ascii = encode_text(control, "file");
  EXPECT_EQ(ascii.vocabulary, 128);
  EXPECT_EQ(ascii.train.scalar_type(), at::kByte);
  EXPECT_TRUE(identical(ascii.train.narrow(0, 0, 128), at::arange(128, at::kByte)));
  // More than 256 characters, of one to four bytes.
  std::string many = "\xef\xbb\xbf";  // A byte order mark is none of them.
  const auto append = [&](uint32_t point) {
    if (point < 0x80) {
      many += static_cast<char>(point);
    } else if (point < 0x800) {
      many += {static_cast<char>(0xc0 | point >> 6), static_cast<char>(0x80 | (point & 0x3f))};
    } else {
      many += {static_cast<char>(0xe0 | point >> 12), static_cast<char>(0x80 | (point >> 6 & 0x3f)),
               static_cast<char>(0x80 | (point & 0x3f))};
    }
  };
  for (int i = 0; i < 2000; ++i) append(32 + i % 1000 * 7);
  many += "\U0001f600";
  const TextData wide = encode_text(many, "file");
  EXPECT_EQ(wide.vocabulary, 1001);
  EXPECT_EQ(wide.symbols.back(), "\U0001f600");
  EXPECT_EQ(wide.train.scalar_type(), at::kInt);
  EXPECT_TRUE(identical(wide.train.narrow(0, 0, 1000), at::arange(1000, at::kInt)));
  EXPECT_EQ(wide.train.size(0) + wide.validation.size(0), 2001);
  EXPECT_EQ(wide.validation[-1].item<int>(), 1000);
}

TEST(Text, OtherEncodingsAreRefusedWithThePlace) {
  std::string latin(2000, 'x');
  latin[1234] = '\xe9';
  EXPECT_MENTIONS(refusal([&] { encode_text(latin, "file"); }),
                  "expected UTF-8 text, got byte 0xe9 at offset 1234 in file");
  std::string utf16;
  for (int i = 0; i < 1000; ++i) utf16 += {static_cast<char>('a' + i % 26), '\0'};
  EXPECT_MENTIONS(refusal([&] { encode_text(utf16, "file"); }), "1000 zero bytes (as UTF-16 has)");
  EXPECT_MENTIONS(refusal([&] { encode_text("\xff\xfe" + utf16, "file"); }), "UTF-8 text");
}

TEST(Text, FingerprintsTellTextsApart) {
  const std::string text = "abcd" + std::string(1000, 'e');
  const auto of = [](const std::string& content) {
    return text_fingerprint(encode_text(content, "file"));
  };
  EXPECT_EQ(of(text), of(text));
  std::string swapped = text, renamed = text;
  std::swap(swapped[0], swapped[1]);
  for (char& c : renamed) c = static_cast<char>(c + 1);  // The same numbers for other letters.
  EXPECT_NE(of(text), of(swapped));
  EXPECT_NE(of(text), of(renamed));
  EXPECT_NE(of(text), of(text + "e"));
}

/// Entropy in nats of the next character given the `order` before it.
double conditional_entropy(const at::Tensor& text, int64_t vocabulary, int64_t order) {
  at::Tensor context = at::zeros({text.size(0) - order}, at::kLong);
  for (int64_t i = 0; i < order; ++i) {
    context = context * vocabulary + text.narrow(0, i, context.size(0)).to(at::kLong);
  }
  const at::Tensor next = text.narrow(0, order, context.size(0)).to(at::kLong);
  const auto entropy = [](const at::Tensor& codes) {
    const at::Tensor p = at::bincount(codes).to(at::kDouble) / codes.size(0);
    return -(p * p.clamp_min(1e-12).log()).sum().item<double>();
  };
  return entropy(context * vocabulary + next) - entropy(context);
}

TEST(SyntheticText, HasSomethingToLearnAtEveryOrder) {
  const TextData data = synthetic_text(3, {.alphabet = 32, .length = 400'000});
  EXPECT_EQ(data.train.size(0), 360'000);
  EXPECT_EQ(data.train.max().item<int>(), 31);
  const double none = conditional_entropy(data.train, 32, 0);
  const double one = conditional_entropy(data.train, 32, 1);
  const double two = conditional_entropy(data.train, 32, 2);
  const double three = conditional_entropy(data.train, 32, 3);
  EXPECT_LT(none, 0.95 * std::log(32.0));
  EXPECT_LT(one, none - 0.3);
  EXPECT_LT(two, one - 0.1);
  EXPECT_LT(three, two - 0.1);
  EXPECT_GT(three, 0.1);
}

TEST(SyntheticText, IsAFunctionOfItsSeed) {
  EXPECT_TRUE(identical(synthetic_text(1).train, synthetic_text(1).train));
  EXPECT_FALSE(at::equal(synthetic_text(1).train, synthetic_text(2).train));
  EXPECT_THROW(synthetic_text(1, {.alphabet = 3}), InputError);
  EXPECT_THROW(synthetic_text(1, {.length = 10}), InputError);
}

}  // namespace
}  // namespace mnemosyne::tasks
