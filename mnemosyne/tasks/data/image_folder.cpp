#include "mnemosyne/tasks/data/image_folder.h"

#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <utility>
#include <vector>

#include "mnemosyne/core/error.h"
#include "mnemosyne/io/file.h"
#include "mnemosyne/io/image_file.h"
#include "mnemosyne/tasks/data/bytes.h"

namespace mnemosyne::tasks {
namespace {

namespace fs = std::filesystem;

constexpr int kDeepest = 16;
constexpr int64_t kColours = 3;
constexpr int64_t kMostBytes = int64_t{1} << 32;

std::string suffix_of(const fs::path& file) {
  std::string suffix = file.extension().string();
  for (char& c : suffix) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return suffix;
}

/// Whether a file is an image that is read; InputError for one of another format.
bool is_image(const fs::path& file) {
  const std::string suffix = suffix_of(file);
  for (const char* known : {".png", ".jpg", ".jpeg"}) {
    if (suffix == known) return true;
  }
  for (const char* other : {".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp"}) {
    if (suffix == other) refuse_data(file.string(), "PNG or JPEG images", suffix);
  }
  return false;
}

struct Folder {
  std::vector<fs::path> folders, images;  // Sorted by name.
};

Folder list(const fs::path& path) {
  Folder result;
  std::error_code error;
  fs::directory_iterator entries(path, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    const fs::path entry = entries->path();
    if (entry.filename().string().front() == '.') continue;
    std::error_code unknown;
    if (fs::is_directory(entry, unknown)) {
      result.folders.push_back(entry);
    } else if (is_image(entry)) {
      result.images.push_back(entry);
    }
  }
  if (error) {
    throw InputError("[data] expected a folder of images, got " + path.string() + ": " +
                     error.message());
  }
  std::sort(result.folders.begin(), result.folders.end());
  std::sort(result.images.begin(), result.images.end());
  return result;
}

/// All images in a folder and below.
void collect(const fs::path& path, int depth, std::vector<fs::path>& images) {
  if (depth > kDeepest) refuse_data(path.string(), "at most 16 folders in one another", "more");
  const Folder folder = list(path);
  images.insert(images.end(), folder.images.begin(), folder.images.end());
  for (const fs::path& deeper : folder.folders) collect(deeper, depth + 1, images);
}

struct Class {
  std::string name;
  std::vector<fs::path> images;
};

std::vector<Class> list_classes(const fs::path& path) {
  const Folder folder = list(path);
  if (!folder.images.empty()) {
    refuse_data(path.string(), "every image in the folder of its class",
                folder.images.front().filename().string());
  }
  std::vector<Class> classes;
  for (const fs::path& each : folder.folders) {
    Class& one = classes.emplace_back(Class{each.filename().string(), {}});
    collect(each, 1, one.images);
    if (one.images.empty()) {
      refuse_data(each.string(), "PNG or JPEG images in the folder of every class", "none");
    }
    std::sort(one.images.begin(), one.images.end());
  }
  return classes;
}

/// Whether a folder is a part of the images and not a class: it holds folders, and no images.
bool is_part(const fs::path& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return false;
  const Folder inside = list(path);
  return !inside.folders.empty() && inside.images.empty();
}

/// The classes of the first part that there is to hold out.
std::vector<Class> list_held_out(const fs::path& folder) {
  std::error_code error;
  for (const char* name : {"val", "valid", "validation", "test"}) {
    if (fs::is_directory(folder / name, error)) return list_classes(folder / name);
  }
  return {};
}

/// Reads images, all of one size, and sees whether any has colours.
class Loader {
 public:
  /// [C,H,W]
  at::Tensor load(const std::string& file) {
    const io::Image image = io::read_image(file);
    const std::string size = std::to_string(image.height) + " x " + std::to_string(image.width);
    if (first_.empty()) {
      first_ = file;
      size_ = size;
    }
    if (size != size_) {
      refuse_data(file, "images of one size, " + size_ + " as in " + first_, size);
    }
    bytes_ += image.height * image.width * kColours;
    if (bytes_ > kMostBytes) refuse_data(file, "at most 4 GiB of pixels", "more");
    channels_ = std::max(channels_, image.channels);
    return byte_tensor(image.pixels)
        .view({image.height, image.width, image.channels})
        .permute({2, 0, 1})
        .contiguous();
  }

  int64_t channels() const { return channels_; }

 private:
  std::string first_, size_;
  int64_t bytes_ = 0, channels_ = 1;
};

struct Part {
  std::vector<at::Tensor> images;
  std::vector<int64_t> labels;

  void add(const Class& one, int64_t label, Loader& loader) {
    for (const fs::path& file : one.images) {
      images.push_back(loader.load(file.string()));
      labels.push_back(label);
    }
  }

  ImageSet with_channels(int64_t channels) const {
    std::vector<at::Tensor> all;
    for (const at::Tensor& image : images) {
      all.push_back(image.expand({channels, image.size(1), image.size(2)}));
    }
    return {at::stack(all), at::tensor(labels, at::kLong)};
  }
};

/// The number of the class in the training part.
int64_t label_of(const Class& held_out, const std::vector<Class>& classes) {
  for (size_t i = 0; i < classes.size(); ++i) {
    if (classes[i].name == held_out.name) return static_cast<int64_t>(i);
  }
  refuse_data(held_out.images.front().parent_path().string(), "a class of the training images",
              io::in_quotes(held_out.name));
}

}  // namespace

ImageData read_image_folder(const std::string& folder) {
  const fs::path train_part = fs::path(folder) / "train";
  const bool parts = is_part(train_part);
  std::vector<Class> classes = list_classes(parts ? train_part : fs::path(folder)), held_out;
  if (parts) held_out = list_held_out(folder);
  if (classes.size() < 2) {
    refuse_data(folder, "a folder for each of two or more classes of images",
                std::to_string(classes.size()));
  }
  Loader loader;
  Part train, test;
  for (const Class& one : classes) train.add(one, label_of(one, classes), loader);
  for (const Class& one : held_out) test.add(one, label_of(one, classes), loader);
  const ImageSet all = train.with_channels(loader.channels());
  ImageData data = held_out.empty()
                       ? hold_out_tenths(all, folder)
                       : ImageData{.train = all, .test = test.with_channels(loader.channels())};
  data.num_classes = static_cast<int64_t>(classes.size());
  for (Class& one : classes) data.class_names.push_back(std::move(one.name));
  measure(data);
  return data;
}

}  // namespace mnemosyne::tasks
