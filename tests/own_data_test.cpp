#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "mnemosyne/io/image_file.h"
#include "mnemosyne/tasks/data/datasets.h"
#include "mnemosyne/tasks/data/idx.h"
#include "mnemosyne/tasks/registry.h"
#include "tests/data/image_golden.h"
#include "tests/data_files.h"
#include "tests/testing.h"

namespace mnemosyne::tasks {
namespace {

using mnemosyne::testing::golden_images;
using mnemosyne::testing::GoldenImage;
using mnemosyne::testing::gzip;
using mnemosyne::testing::identical;
using mnemosyne::testing::refusal;
using mnemosyne::testing::TestFolder;

std::string from_hex(std::string_view digits) {
  std::string bytes;
  for (size_t i = 0; i < digits.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(std::string(digits.substr(i, 2)), nullptr, 16));
  }
  return bytes;
}

const GoldenImage& golden(const std::string& name) {
  for (const GoldenImage& image : golden_images()) {
    if (image.name == name) return image;
  }
  throw std::runtime_error(name);
}

std::string file_of(const std::string& name) { return from_hex(golden(name).file); }

bool readable(const std::string& name) {
  return name.starts_with("png") ? io::has_png() : io::has_jpeg();
}

#define NEEDS_IMAGES() \
  if (!io::has_png() || !io::has_jpeg()) GTEST_SKIP() << "needs libpng and libjpeg"

TEST(ImageFile, HasThePixelsThatPillowReads) {
  for (const GoldenImage& expected : golden_images()) {
    if (!readable(expected.name)) {
      EXPECT_MENTIONS(refusal([&] { io::decode_image(file_of(expected.name), "file"); }),
                      "built without");
      continue;
    }
    const io::Image image = io::decode_image(file_of(expected.name), "file");
    EXPECT_EQ(image.height, expected.height) << expected.name;
    EXPECT_EQ(image.width, expected.width) << expected.name;
    EXPECT_EQ(image.channels, expected.channels) << expected.name;
    EXPECT_EQ(image.pixels, from_hex(expected.pixels)) << expected.name;
  }
}

TEST(ImageFile, RefusesWhatIsDamagedAtEveryLength) {
  NEEDS_IMAGES();
  for (const GoldenImage& each : golden_images()) {
    const std::string good = file_of(each.name);
    // Pixels end before the last bytes, which are an end mark of 12 or of 2.
    const size_t end = good.size() - (std::string(each.name).starts_with("png") ? 12 : 2);
    for (size_t length = 0; length < end; ++length) {
      const std::string text =
          refusal([&] { io::decode_image(good.substr(0, length), "the_file"); });
      EXPECT_MENTIONS(text, "the_file");
    }
  }
  std::string flipped = file_of("png_rgb");
  flipped[flipped.size() - 20] ^= 1;
  EXPECT_MENTIONS(refusal([&] { io::decode_image(flipped, "f"); }), "damaged");
  EXPECT_MENTIONS(refusal([] { io::decode_image("GIF89a", "f"); }), "expected a PNG or JPEG image");
  std::string huge = file_of("png_rgb");
  huge.replace(16, 8, std::string("\0\0\xff\xff\0\0\xff\xff", 8));
  EXPECT_MENTIONS(refusal([&] { io::decode_image(huge, "f"); }), "f");  // Its checksum is wrong.
}

std::string number(uint32_t value, int bytes) {
  std::string text;
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) {
    text += static_cast<char>(value >> shift & 0xff);
  }
  return text;
}

/// IDX images with pixel i at place i, all different for small sizes.
std::string idx(const std::vector<uint32_t>& sizes) {
  std::string bytes = number(0x800 + sizes.size(), 4);
  uint32_t count = 1;
  for (const uint32_t size : sizes) {
    bytes += number(size, 4);
    count *= size;
  }
  for (uint32_t i = 0; i < count; ++i) bytes += static_cast<char>(i * 7 % 251);
  return bytes;
}

std::string idx_labels(const std::vector<uint32_t>& labels, int width = 1) {
  const uint32_t type = width == 1 ? 0x801 : width == 2 ? 0xb01 : 0xc01;
  std::string bytes = number(type, 4) + number(static_cast<uint32_t>(labels.size()), 4);
  for (const uint32_t label : labels) bytes += number(label, width);
  return bytes;
}

TEST(OwnIdx, ChannelsMayStandFirstOrLast) {
  const at::Tensor first = parse_idx_images(idx({2, 3, 4, 5}), "f");
  EXPECT_EQ(first.sizes(), at::IntArrayRef({2, 3, 4, 5}));
  EXPECT_EQ(first[1][2][3][4].item<int>(), 119 * 7 % 251);
  const at::Tensor last = parse_idx_images(idx({2, 4, 5, 3}), "f");
  EXPECT_EQ(last.sizes(), at::IntArrayRef({2, 3, 4, 5}));
  EXPECT_EQ(last[1][2][3][4].item<int>(), 119 * 7 % 251);
  EXPECT_EQ(last[1][0][3][4].item<int>(), 117 * 7 % 251);
  EXPECT_EQ(parse_idx_images(idx({2, 7, 4, 5}), "f").size(1), 5) << "the smaller is taken";
  EXPECT_MENTIONS(refusal([] { parse_idx_images(idx({2, 3, 4, 3}), "f"); }), "got 3 in both");
}

TEST(OwnIdx, LabelsMayBeOfMoreBytes) {
  for (const int width : {2, 4}) {
    EXPECT_TRUE(identical(parse_idx_labels(idx_labels({0, 300, 7}, width), "f"),
                          at::tensor({0, 300, 7}, at::kLong)));
  }
  EXPECT_MENTIONS(refusal([] { parse_idx_labels(idx_labels({1, 0xffffffff}, 4), "f"); }),
                  "got 4294967295");
  EXPECT_MENTIONS(refusal([] { parse_idx_labels(idx_labels({100'000}, 4), "f"); }), "100000");
}

TEST(OwnIdx, MayHaveAnySizeAndClassesAndNoHeldOutPart) {
  const TestFolder folder("own_idx");
  std::vector<uint32_t> labels;
  for (uint32_t i = 0; i < 60; ++i) labels.push_back(i % 3 == 2 ? 26 : i % 3);
  folder.write("emnist-train-images-idx3-ubyte.gz", gzip(idx({60, 5, 9})));
  folder.write("emnist-train-labels-idx1-ubyte", idx_labels(labels));
  folder.write("._emnist-train-images-idx3-ubyte", "a Mac's");
  const auto split = load_images(folder.path());
  EXPECT_EQ(split->num_classes, 27);
  EXPECT_EQ(split->train.size(), 54);
  EXPECT_EQ(split->test.size(), 6);
  EXPECT_TRUE(identical(split->test.labels, at::tensor({0, 1, 26, 0, 1, 26}, at::kLong)));
  const at::Tensor all = parse_idx_images(idx({60, 5, 9}), "f");
  EXPECT_TRUE(identical(split->test.images[0], all[27])) << "the tenth of class 0";

  folder.write("emnist-test-images-idx3-ubyte", idx({4, 5, 9}));
  folder.write("emnist-test-labels-idx1-ubyte", idx_labels({0, 1, 26, 1}));
  const TestFolder copy("own_idx_parts");
  std::filesystem::copy(folder.path(), copy.path());
  const auto parts = load_images(copy.path());
  EXPECT_EQ(parts->train.size(), 60);
  EXPECT_EQ(parts->test.size(), 4);
  EXPECT_NE(parts->fingerprint, split->fingerprint);

  copy.write("emnist-test-images-idx3-ubyte", idx({4, 9, 5}));
  EXPECT_EQ(load_images(copy.path()), parts) << "what is in use is shared";
}

TEST(OwnIdx, NamesWhatDoesNotFit) {
  const TestFolder folder("bad_idx");
  const auto message = [&] { return refusal([&] { load_images(folder.path()); }); };
  folder.write("train-images-idx3-ubyte", idx({12, 4, 4}));
  EXPECT_MENTIONS(message(), "a file with train-labels in its name, got none");
  folder.write("train-labels-idx1-ubyte", idx_labels(std::vector<uint32_t>(12, 0)));
  EXPECT_MENTIONS(message(), "labels of two or more classes");
  folder.write("train-labels-idx1-ubyte", idx_labels({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}));
  EXPECT_MENTIONS(message(), "a class of 10");
  folder.write("t10k-images-idx3-ubyte", idx({2, 4, 5}));
  folder.write("t10k-labels-idx1-ubyte", idx_labels({1, 2}));
  EXPECT_MENTIONS(message(), "one size");
  folder.write("letters-train-images-idx3-ubyte", idx({12, 4, 4}));
  EXPECT_MENTIONS(message(), "one file with train-images in its name");
}

/// A file of its class, so that images of two classes differ.
void write_images(const TestFolder& folder, const std::string& part, int per_class) {
  for (const std::string name : {"zebra", "ant", "Cat"}) {
    for (int i = 0; i < per_class; ++i) {
      const char* kind = name == "ant" ? "png_rgb" : name == "Cat" ? "png_grey" : "png_rgba";
      folder.write(part + name + (i % 2 ? "/deep/" : "/") + std::to_string(i) + ".PNG",
                   file_of(kind));
    }
  }
}

TEST(ImageFolder, IsReadAsTorchvisionReadsIt) {
  NEEDS_IMAGES();
  const TestFolder folder("image_folder");
  write_images(folder, "train/", 3);
  folder.write("val/ant/1.png", file_of("png_rgba"));
  folder.write("test/ant/1.png", "not looked at: there is a val");
  folder.write("train/.DS_Store", "x");
  folder.write("train/ant/._0.PNG", "x");
  folder.write("train/ant/notes.txt", "x");
  const auto data = load_images(folder.path());
  EXPECT_EQ(data->class_names, (std::vector<std::string>{"Cat", "ant", "zebra"}));
  EXPECT_TRUE(identical(data->train.labels, at::tensor({0, 0, 0, 1, 1, 1, 2, 2, 2}, at::kLong)));
  EXPECT_TRUE(identical(data->test.labels, at::tensor({1}, at::kLong)));
  EXPECT_EQ(data->train.images.sizes(), at::IntArrayRef({9, 3, 3, 5}));
  // Grey ones are the same in all three channels beside coloured ones.
  EXPECT_TRUE(identical(data->train.images[0][0], data->train.images[0][2]));
  const std::string pixels = from_hex(golden("png_rgb").pixels);
  for (const int64_t channel : {0, 2}) {
    EXPECT_EQ(data->train.images[3][channel][1][4].item<int>(),
              static_cast<unsigned char>(pixels[(1 * 5 + 4) * 3 + channel]));
  }
}

TEST(ImageFolder, WithoutPartsHoldsOutEveryTenth) {
  NEEDS_IMAGES();
  const TestFolder folder("one_part");
  for (const std::string name : {"train", "cat"}) {  // A class may be called train.
    for (int i = 0; i < 25; ++i) {
      folder.write(name + "/" + std::to_string(100 + i) + ".png",
                   file_of(i == 9 ? "png_bits" : "png_grey"));
    }
  }
  const auto data = load_images(folder.path());
  EXPECT_EQ(data->class_names, (std::vector<std::string>{"cat", "train"}));
  EXPECT_EQ(data->train.size(), 46);
  EXPECT_TRUE(identical(data->test.labels, at::tensor({0, 0, 1, 1}, at::kLong)));
  EXPECT_EQ(data->train.images.size(1), 1) << "grey only";
  const std::string bits = from_hex(golden("png_bits").pixels);
  EXPECT_EQ(data->test.images[0].flatten()[3].item<int>(), static_cast<unsigned char>(bits[3]));
}

TEST(ImageFolder, NamesWhatDoesNotFit) {
  NEEDS_IMAGES();
  const auto message = [](const std::function<void(const TestFolder&)>& spoil) {
    const TestFolder folder("bad_images");
    write_images(folder, "train/", 2);
    write_images(folder, "val/", 1);
    spoil(folder);
    const std::string text = refusal([&] { load_images(folder.path()); });
    EXPECT_MENTIONS(text, folder.path());
    return text;
  };
  const auto spoil = [&](const std::string& name, const std::string& bytes) {
    return message([&](const TestFolder& folder) { folder.write(name, bytes); });
  };
  const std::string size = spoil("train/ant/x.jpg", file_of("jpeg_444"));
  EXPECT_MENTIONS(size, "expected images of one size, 3 x 5 as in ");
  EXPECT_MENTIONS(size, "got 9 x 11 in ");
  EXPECT_MENTIONS(size, "train/ant/x.jpg");
  EXPECT_MENTIONS(spoil("val/ant/x.jpeg", file_of("jpeg_444")), "val/ant/x.jpeg");
  EXPECT_MENTIONS(spoil("train/ant/x.webp", "x"), "PNG or JPEG images, got .webp");
  EXPECT_MENTIONS(spoil("train/ant/x.png", "x"), "x.png");
  EXPECT_MENTIONS(spoil("train/ant/x.png", file_of("png_rgb").substr(0, 60)), "damaged");
  EXPECT_MENTIONS(spoil("val/dog/x.png", file_of("png_rgb")),
                  "a class of the training images, got \"dog\"");
  EXPECT_MENTIONS(spoil("val/x.png", file_of("png_rgb")), "in the folder of its class, got x.png");
  EXPECT_MENTIONS(spoil("train/empty/notes.txt", "x"), "images in the folder of every class");
  EXPECT_MENTIONS(refusal([] { load_images("/nowhere"); }), "/nowhere");

  const TestFolder flat("flat_images");
  EXPECT_MENTIONS(refusal([&] { load_images(flat.path()); }), "two or more classes of images");
  flat.write("a/1.png", file_of("png_rgb"));
  flat.write("b/1.png", file_of("png_rgb"));
  EXPECT_MENTIONS(refusal([&] { load_images(flat.path()); }), "a class of 10");
  flat.write("c.png", file_of("png_rgb"));
  EXPECT_MENTIONS(refusal([&] { load_images(flat.path()); }), "in the folder of its class");
}

TEST(ImageFolder, MayHoldLinks) {
  NEEDS_IMAGES();
  const TestFolder folder("linked_images"), elsewhere("elsewhere");
  write_images(elsewhere, "", 10);
  std::filesystem::create_directory_symlink(elsewhere.path() + "/ant", folder.path() + "/a");
  std::filesystem::create_directory_symlink(elsewhere.path() + "/Cat", folder.path() + "/b");
  EXPECT_EQ(load_images(folder.path())->train.size(), 18);
  std::filesystem::create_directory_symlink(folder.path(), folder.path() + "/b/circle");
  const TestFolder again("again");
  std::filesystem::create_directory_symlink(folder.path() + "/a", again.path() + "/a");
  std::filesystem::create_directory_symlink(folder.path() + "/b", again.path() + "/b");
  EXPECT_MENTIONS(refusal([&] { load_images(again.path()); }), "at most 16 folders");
}

/// The mean loss of a few steps of the task, whose networks have to fit its data.
double some_loss(const Task& task) {
  const auto params = stack_members(task.init(1), 1);
  EXPECT_FALSE(task.validation_batches().empty());
  return task.loss(params, task.train_stream(1)->at(0)).item<double>() +
         task.loss(params, task.validation_batches()[0]).item<double>();
}

TEST(OwnTasks, TakeImagesOfAnySizeAndNumberOfClasses) {
  for (const auto& sizes : std::vector<std::vector<uint32_t>>{
           {40, 5, 9}, {40, 31, 17, 3}, {40, 2, 28, 28}, {40, 1, 1}}) {
    const TestFolder folder("own_images");
    std::vector<uint32_t> labels;
    for (uint32_t i = 0; i < 40; ++i) labels.push_back(i % 4 * 4);
    folder.write("train-images-idx3-ubyte", idx(sizes));
    folder.write("train-labels-idx1-ubyte", idx_labels(labels));
    for (const char* name : {"mlp_images", "conv_images", "vit_images", "flt_vit_images",
                             "flt_vit_images:softmax-rope"}) {
      const auto task = make_task(name, folder.path());
      EXPECT_TRUE(std::isfinite(some_loss(*task))) << name;
      EXPECT_EQ(task->data_fingerprint(), load_images(folder.path())->fingerprint);
      const auto logits_bias = task->init(0).back();
      EXPECT_EQ(logits_bias.size(0), 13) << name;
    }
    const std::string text = refusal([&] { make_task("conv_images", folder.path() + "/none"); });
    EXPECT_MENTIONS(text, folder.path() + "/none");
  }
}

TEST(OwnTasks, OfPublishedImagesRefuseOtherSizes) {
  const TestFolder folder("other_mnist");
  folder.write("mnist/train-images-idx3-ubyte", idx({20, 32, 32}));
  folder.write("mnist/train-labels-idx1-ubyte", idx_labels(std::vector<uint32_t>(20, 3)));
  folder.write("mnist/t10k-images-idx3-ubyte", idx({20, 32, 32}));
  folder.write("mnist/t10k-labels-idx1-ubyte", idx_labels(std::vector<uint32_t>(20, 3)));
  for (const char* name : {"conv_mnist", "autoencoder_mnist", "flt_vit_mnist"}) {
    const std::string text = refusal([&] { make_task(name, folder.path()); });
    EXPECT_MENTIONS(text, "expected images of 1 x 14 x 14 pixels");
    EXPECT_MENTIONS(text, "conv_images");
    EXPECT_MENTIONS(text, "got 1 x 16 x 16 pixels");
  }
}

std::string own_text() {
  std::string text;
  for (int i = 0; i < 600; ++i) text += i % 7 == 0 ? "\u00fcber\r\n" : "\u4e16\u754c \x01 ";
  return text;
}

TEST(OwnTasks, TakeATextFileWhateverItsAlphabet) {
  const TestFolder folder("own_text");
  const std::string file = folder.write("novel.txt", own_text());
  folder.write("tinyshakespeare/input.txt", own_text());
  for (const char* name : {"char_lm", "gru_lm", "flt_char_lm", "flt_char_lm:softmax-rope"}) {
    const auto task = make_task(name, file), placed = make_task(name, folder.path());
    EXPECT_GT(some_loss(*task), 2 * std::log(10.0) - 1.0) << name;
    EXPECT_LT(some_loss(*task), 2 * std::log(30.0))
        << "ten outputs, not the 65 of Tiny Shakespeare";
    EXPECT_EQ(some_loss(*task), some_loss(*placed)) << "a file, or in the place of the published";
    EXPECT_EQ(task->metadata().at("vocabulary"),
              R"(["\u0001","\n","\r"," ","b","e","r","\u00fc","\u4e16","\u754c"])");
    EXPECT_EQ(task->data_fingerprint(), placed->data_fingerprint());
    EXPECT_FALSE(task->data_fingerprint().empty());
  }
  for (const char* name : {"flt_word_lm", "tied_word_lm", "gru_word_lm"}) {
    const auto words = make_task(name, file);
    EXPECT_EQ(words->metadata().at("vocabulary"),
              R"(["<unk>","<eos>","\u4e16\u754c","\u0001","\u00fcber"])");
    EXPECT_TRUE(std::isfinite(some_loss(*words))) << name;
  }
  EXPECT_MENTIONS(refusal([&] { make_task("char_lm", folder.write("short", "ab")); }), "short");
  const std::string some(1100, 'a');
  EXPECT_MENTIONS(refusal([&] { make_task("flt_char_lm", folder.write("some", some + "b")); }),
                  "at least 257 characters or words for training and 129 for validation, got 991 ");
}

TEST(OwnTasks, SayWhatDataMayBe) {
  const TestFolder folder("no_data");
  const auto message = [](const std::string& name, const std::string& data) {
    return refusal([&] { make_task(name, data); });
  };
  EXPECT_MENTIONS(message("char_lm", ""),
                  "char_lm needs --data with a folder \"tinyshakespeare\" or a text file");
  EXPECT_MENTIONS(message("char_lm", "/no.txt"), "expected /no.txt, got no such file or folder");
  EXPECT_MENTIONS(message("char_lm", folder.path()), "expected " + folder.path() + "/tinyshake");
  EXPECT_MENTIONS(message("conv_images", ""), "conv_images needs --data with a folder of images");
  EXPECT_MENTIONS(message("conv_mnist", folder.write("file", "x")), "file/mnist");
  EXPECT_MENTIONS(message("conv_images", folder.write("file", "x")), "a folder of images");
  std::set<std::string> own;
  for (const TaskInfo& info : task_list()) {
    if (!info.own_data.empty()) own.insert(info.name);
  }
  EXPECT_EQ(own, (std::set<std::string>{"char_lm", "conv_images", "flt_char_lm", "flt_vit_images",
                                        "flt_word_lm", "gru_lm", "gru_word_lm", "mlp_images",
                                        "tied_word_lm", "vit_images"}));
}

// What was kept of runs on it before other texts could be taken is still theirs.
TEST(OwnTasks, TinyShakespeareNeedsNoFingerprint) {
  const std::string folder = mnemosyne::testing::real_data("tinyshakespeare");
  if (folder.empty()) GTEST_SKIP() << "needs MNEMOSYNE_DATA with tinyshakespeare";
  const std::string data = std::filesystem::path(folder).parent_path().string();
  EXPECT_EQ(make_task("char_lm", data)->data_fingerprint(), "");
  EXPECT_EQ(make_task("char_lm", data)->init(0)[0].size(0), 65);
}

}  // namespace
}  // namespace mnemosyne::tasks
