#include "mnemosyne/tasks/data/datasets.h"

#include <ATen/ops/cat.h>

#include <filesystem>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "mnemosyne/core/error.h"
#include "mnemosyne/io/byte_source.h"
#include "mnemosyne/tasks/data/bytes.h"
#include "mnemosyne/tasks/data/cifar.h"
#include "mnemosyne/tasks/data/idx_folder.h"
#include "mnemosyne/tasks/data/image_folder.h"
#include "mnemosyne/tasks/data/molecule_files.h"
#include "mnemosyne/tasks/data/questions.h"
#include "mnemosyne/tasks/data/solubility.h"

namespace mnemosyne::tasks {
namespace {

constexpr int64_t kClasses = 10;  // of CIFAR-10

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

ImageData read_images(const std::string& folder) {
  ImageData data = is_idx_folder(folder) ? read_own_idx_folder(folder) : read_image_folder(folder);
  data.fingerprint = image_fingerprint(data);
  return data;
}

ImageData read_cifar_folder(const std::string& folder) {
  const auto read = [](const std::string& path) {
    return parse_cifar(io::read_unpacked(path), path);
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

/// The path of that part of WikiText, under any of its names; empty when there is none.
std::string find_wikitext(const std::string& folder, const std::string& part) {
  for (const std::string& name : {"wiki." + part + ".tokens", part + ".txt"}) {
    for (const char* packed : {"", ".gz", ".xz"}) {
      std::string path = folder + "/" + name + packed;
      if (std::filesystem::exists(path)) return path;
    }
  }
  return {};
}

WordData read_wikitext(const std::string& folder, const WordOptions& options) {
  std::vector<std::string> found;
  for (const char* part : {"train", "valid", "test"}) {
    std::string path = find_wikitext(folder, part);
    if (!path.empty()) found.push_back(std::move(path));
  }
  if (found.size() < 2) {
    refuse_data(folder, "two of wiki.train.tokens, wiki.valid.tokens and wiki.test.tokens",
                std::to_string(found.size()));
  }
  return read_words(found[0], found[1], options);
}

template <typename Read>
std::shared_ptr<const MoleculeData> cached_molecules(std::string key, const std::string& folder,
                                                     const std::vector<int64_t>& elements,
                                                     const Read& read) {
  for (const int64_t element : elements) key.append(" ").append(std::to_string(element));
  return cached<MoleculeData>(key + " " + folder, [&] { return read(folder, elements); });
}

}  // namespace

std::string with_suffix(const std::string& path) {
  const bool packed = !std::filesystem::exists(path) && std::filesystem::exists(path + ".gz");
  return packed ? path + ".gz" : path;
}

std::shared_ptr<const ImageData> load_idx(const std::string& folder, int64_t pool) {
  return cached<ImageData>("idx " + std::to_string(pool) + " " + folder,
                           [&] { return read_idx_folder(folder, pool); });
}

std::shared_ptr<const ImageData> load_images(const std::string& folder) {
  return cached<ImageData>("images " + folder, [&] { return read_images(folder); });
}

std::shared_ptr<const ImageData> load_cifar(const std::string& folder) {
  return cached<ImageData>("cifar " + folder, [&] { return read_cifar_folder(folder); });
}

std::shared_ptr<const TextData> load_text(const std::string& path) {
  return cached<TextData>(path, [&] {
    const std::string found = with_suffix(path);
    return encode_text(io::read_unpacked(found), found);
  });
}

std::shared_ptr<const WordData> load_words(const std::string& path, int64_t max_vocabulary) {
  const WordOptions options{.max_vocabulary = max_vocabulary};
  return cached<WordData>("words " + std::to_string(max_vocabulary) + " " + path, [&] {
    return std::filesystem::is_directory(path) ? read_wikitext(path, options)
                                               : read_words(path, options);
  });
}

std::shared_ptr<const MoleculeData> load_qm7(const std::string& folder,
                                             const std::vector<int64_t>& elements) {
  return cached_molecules("qm7", folder, elements, read_qm7);
}

std::shared_ptr<const MoleculeData> load_rmd17(const std::string& folder,
                                               const std::vector<int64_t>& elements) {
  return cached_molecules("rmd17", folder, elements, read_rmd17);
}

std::shared_ptr<const RowData> load_questions(const std::string& folder) {
  return cached<RowData>("questions " + folder, [&] {
    return read_questions(with_suffix(folder + "/train_5500.label"),
                          with_suffix(folder + "/TREC_10.label"));
  });
}

std::shared_ptr<const RowData> load_solubility(const std::string& folder) {
  return cached<RowData>("solubility " + folder, [&] {
    return read_solubility(with_suffix(folder + "/delaney-processed.csv"));
  });
}

}  // namespace mnemosyne::tasks
