#include "mnemosyne/tasks/data/idx_folder.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "mnemosyne/io/byte_source.h"
#include "mnemosyne/tasks/data/bytes.h"
#include "mnemosyne/tasks/data/datasets.h"
#include "mnemosyne/tasks/data/idx.h"

namespace mnemosyne::tasks {
namespace {

constexpr int64_t kClasses = 10;

/// `num_classes` as in parse_idx_labels.
ImageSet read_set(const std::string& images, const std::string& labels, int64_t num_classes) {
  const ImageSet set{parse_idx_images(io::read_unpacked(images), images),
                     parse_idx_labels(io::read_unpacked(labels), labels, num_classes)};
  if (set.images.size(0) != set.labels.size(0)) {
    refuse_data(labels, "one label for each of " + std::to_string(set.images.size(0)) + " images",
                std::to_string(set.labels.size(0)) + " labels");
  }
  return set;
}

void check_sizes(const ImageData& data, const std::string& folder) {
  if (data.train.images.sizes().slice(1) != data.test.images.sizes().slice(1)) {
    refuse_data(folder, "training and test images of one size", "two sizes");
  }
}

/// The one file with any of these parts in its name; empty when there is none.
std::string find_file(const std::string& folder, const std::vector<std::string>& parts) {
  std::vector<std::string> found;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    for (const std::string& part : parts) {
      const size_t at = name.find(part);
      const bool own = name.front() != '.' && at != std::string::npos;
      if (own && name.find("idx", at) != std::string::npos) found.push_back(name);
    }
  }
  std::sort(found.begin(), found.end());  // What is unpacked stands before the packed one.
  if (found.size() == 2 && found[1] == found[0] + ".gz") found.pop_back();
  if (found.size() > 1) {
    refuse_data(folder, "one file with " + parts.front() + " in its name",
                found[0] + " and " + found[1]);
  }
  return found.empty() ? "" : folder + "/" + found[0];
}

std::string require_file(const std::string& folder, const std::vector<std::string>& parts) {
  std::string file = find_file(folder, parts);
  if (file.empty()) refuse_data(folder, "a file with " + parts.front() + " in its name", "none");
  return file;
}

}  // namespace

ImageData read_idx_folder(const std::string& folder, int64_t pool) {
  const auto read = [&](const std::string& part) {
    return read_set(with_suffix(folder + "/" + part + "-images-idx3-ubyte"),
                    with_suffix(folder + "/" + part + "-labels-idx1-ubyte"), kClasses);
  };
  ImageData data{.train = read("train"), .test = read("t10k"), .num_classes = kClasses};
  check_sizes(data, folder);
  if (pool > 1) {
    const int64_t height = data.train.images.size(2), width = data.train.images.size(3);
    if (height % pool != 0 || width % pool != 0) {
      refuse_data(folder, "sides divisible by " + std::to_string(pool),
                  std::to_string(height) + " and " + std::to_string(width));
    }
    data.train = average_pool(data.train, pool);
    data.test = average_pool(data.test, pool);
  }
  measure(data);
  return data;
}

ImageData read_own_idx_folder(const std::string& folder) {
  const auto read = [&](const std::vector<std::string>& images) {
    std::vector<std::string> labels = images;
    for (std::string& name : labels) name.replace(name.find("images"), 6, "labels");
    return read_set(require_file(folder, images), require_file(folder, labels), 0);
  };
  const std::vector<std::string> held_out{"t10k-images", "test-images"};
  const ImageSet train = read({"train-images"});
  ImageData data = find_file(folder, held_out).empty()
                       ? hold_out_tenths(train, folder)
                       : ImageData{.train = train, .test = read(held_out)};
  check_sizes(data, folder);
  data.num_classes =
      1 + std::max(data.train.labels.max().item<int64_t>(), data.test.labels.max().item<int64_t>());
  if (data.num_classes < 2) refuse_data(folder, "labels of two or more classes", "one");
  measure(data);
  return data;
}

bool is_idx_folder(const std::string& folder) {
  return !find_file(folder, {"train-images"}).empty();
}

}  // namespace mnemosyne::tasks
