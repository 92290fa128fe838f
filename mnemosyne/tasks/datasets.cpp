#include "mnemosyne/tasks/datasets.h"

#include <ATen/ops/cat.h>

#include <filesystem>
#include <map>
#include <mutex>
#include <vector>

#include "mnemosyne/core/error.h"
#include "mnemosyne/io/gzip.h"
#include "mnemosyne/tasks/bytes.h"
#include "mnemosyne/tasks/cifar.h"
#include "mnemosyne/tasks/idx.h"

namespace mnemosyne::tasks {
namespace {

constexpr int64_t kClasses = 10;

/// What is loaded, by key, for as long as somebody else holds it.
template <typename Data, typename Load>
std::shared_ptr<const Data> cached(const std::string& key, const Load& load) {
  static std::mutex mutex;
  static std::map<std::string, std::weak_ptr<const Data>> loaded;
  const std::lock_guard<std::mutex> lock(mutex);
  std::shared_ptr<const Data> data = loaded[key].lock();
  if (!data) {
    data = std::make_shared<const Data>(load());
    loaded[key] = data;
  }
  return data;
}

/// The path itself, or with ".gz" where only that exists.
std::string with_suffix(const std::string& path) {
  const bool packed = !std::filesystem::exists(path) && std::filesystem::exists(path + ".gz");
  return packed ? path + ".gz" : path;
}

ImageSet read_idx(const std::string& folder, const std::string& part) {
  const std::string images = with_suffix(folder + "/" + part + "-images-idx3-ubyte");
  const std::string labels = with_suffix(folder + "/" + part + "-labels-idx1-ubyte");
  const ImageSet set{parse_idx_images(io::read_plain_or_gzip(images), images),
                     parse_idx_labels(io::read_plain_or_gzip(labels), labels, kClasses)};
  if (set.images.size(0) != set.labels.size(0)) {
    refuse_data(labels, "one label for each of " + std::to_string(set.images.size(0)) + " images",
                std::to_string(set.labels.size(0)) + " labels");
  }
  return set;
}

ImageData read_idx_folder(const std::string& folder, int64_t pool) {
  ImageData data{.train = read_idx(folder, "train"),
                 .test = read_idx(folder, "t10k"),
                 .num_classes = kClasses};
  const at::IntArrayRef train = data.train.images.sizes().slice(1);
  if (train != data.test.images.sizes().slice(1)) {
    refuse_data(folder, "training and test images of one size", "two sizes");
  }
  if (pool > 1) {
    if (train[1] % pool != 0 || train[2] % pool != 0) {
      refuse_data(folder, "sides divisible by " + std::to_string(pool),
                  std::to_string(train[1]) + " and " + std::to_string(train[2]));
    }
    data.train = average_pool(data.train, pool);
    data.test = average_pool(data.test, pool);
  }
  measure(data);
  return data;
}

ImageData read_cifar_folder(const std::string& folder) {
  const auto read = [](const std::string& path) {
    return parse_cifar(io::read_plain_or_gzip(path), path);
  };
  std::vector<at::Tensor> images, labels;
  for (int i = 1; i <= 5; ++i) {
    const std::string path = with_suffix(folder + "/data_batch_" + std::to_string(i) + ".bin");
    if (i > 1 && !std::filesystem::exists(path)) continue;
    const ImageSet part = read(path);
    images.push_back(part.images);
    labels.push_back(part.labels);
  }
  ImageData data{.train = {at::cat(images), at::cat(labels)},
                 .test = read(with_suffix(folder + "/test_batch.bin")),
                 .num_classes = kClasses};
  measure(data);
  return data;
}

}  // namespace

std::shared_ptr<const ImageData> load_idx(const std::string& folder, int64_t pool) {
  return cached<ImageData>("idx " + std::to_string(pool) + " " + folder,
                           [&] { return read_idx_folder(folder, pool); });
}

std::shared_ptr<const ImageData> load_cifar(const std::string& folder) {
  return cached<ImageData>("cifar " + folder, [&] { return read_cifar_folder(folder); });
}

std::shared_ptr<const TextData> load_text(const std::string& path) {
  return cached<TextData>(path, [&] {
    const std::string found = with_suffix(path);
    return encode_text(io::read_plain_or_gzip(found), found);
  });
}

}  // namespace mnemosyne::tasks
