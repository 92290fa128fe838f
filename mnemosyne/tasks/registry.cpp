#include "mnemosyne/tasks/registry.h"

#include <filesystem>
#include <utility>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/tasks/data/datasets.h"
#include "mnemosyne/tasks/data/digits.h"
#include "mnemosyne/tasks/data/own_images.h"
#include "mnemosyne/tasks/flt_tasks.h"
#include "mnemosyne/tasks/image_tasks.h"
#include "mnemosyne/tasks/language_task.h"
#include "mnemosyne/tasks/stacked/conv_net.h"
#include "mnemosyne/tasks/stacked/gru_lm.h"
#include "mnemosyne/tasks/stacked/mlp.h"
#include "mnemosyne/tasks/stacked/transformer_lm.h"
#include "mnemosyne/tasks/stacked/vit.h"
#include "mnemosyne/tasks/task_entry.h"
#include "mnemosyne/tasks/unseen_tasks.h"

namespace mnemosyne::tasks {
namespace {

using ModelPtr = std::shared_ptr<const Model>;
using TaskPtr = std::shared_ptr<const Task>;

constexpr int64_t kMnistPixels = kSide * kSide;
constexpr DataShape kSynthetic{.vocabulary = 32};
constexpr int64_t kTransformerContext = 64, kGruContext = 48;
constexpr uint64_t kSyntheticSeed = 1492;  // a language that no family draws

TaskPtr interpolate_digits(const TaskEntry& entry, const std::string&) {
  return make_classification(entry.info.name, entry.published_model(), digits(),
                             {.batch_size = entry.info.default_batch, .train_size = 1000});
}

TaskPtr predict_with_transformer(const TaskEntry& entry, const std::string& path) {
  return predict_characters(entry, path, kTransformerContext);
}

TaskPtr predict_with_gru(const TaskEntry& entry, const std::string& path) {
  return predict_characters(entry, path, kGruContext);
}

TaskPtr predict_synthetic(const TaskEntry& entry, const std::string&) {
  static const auto text = std::make_shared<const TextData>(
      synthetic_text(kSyntheticSeed, {.alphabet = kSynthetic.vocabulary, .length = 400'000}));
  return make_language_task(
      entry.info.name, entry.published_model(), text,
      {.context = kTransformerContext, .batch_size = entry.info.default_batch});
}

std::vector<TaskEntry> digit_tasks() {
  return {
      {{.name = "vit_digits",
        .description = "Vision Transformer, width 32, 3 layers, on 8x8 handwritten digits",
        .default_steps = 1000,
        .default_batch = 32},
       kDigits,
       [](const DataShape&) {
         return make_vit({.transformer = {.width = 32, .heads = 4, .layers = 3}});
       },
       classify_digits},
      {{.name = "mlp_digits_interpolate",
        .description = "MLP 64-128-128-10 that interpolates 1,000 handwritten digits",
        .default_steps = 2000,
        .default_batch = 64},
       kDigits,
       [](const DataShape&) { return make_mlp({.sizes = {64, 128, 128, 10}}); },
       interpolate_digits},
  };
}

std::vector<TaskEntry> image_tasks() {
  return {
      {{.name = "mlp_fashion_wide",
        .description = "MLP 196-256-10 on Fashion-MNIST at 14x14",
        .default_batch = 128,
        .data = "fashion_mnist"},
       kMnist,
       [](const DataShape&) { return make_mlp({.sizes = {kMnistPixels, 256, 10}}); },
       classify_idx},
      {{.name = "mlp_mnist_deep",
        .description = "MLP with 6 hidden layers of 64 on MNIST at 14x14",
        .data = "mnist"},
       kMnist,
       [](const DataShape&) {
         return make_mlp({.sizes = {kMnistPixels, 64, 64, 64, 64, 64, 64, 10}});
       },
       classify_idx},
      {{.name = "vit_fashion",
        .description = "Vision Transformer, width 32, 2 layers, on Fashion-MNIST at 14x14",
        .default_batch = 32,
        .data = "fashion_mnist"},
       kMnist,
       [](const DataShape&) {
         return make_vit(
             {.image_size = kSide, .transformer = {.width = 32, .heads = 2, .layers = 2}});
       },
       classify_idx},
      {{.name = "conv_cifar",
        .description = "3 convolutions of stride 2, 16-32-32 channels, on CIFAR-10",
        .data = "cifar10"},
       kCifar,
       [](const DataShape&) {
         return make_conv_net({.image_size = 32, .channels = 3, .widths = {16, 32, 32}});
       },
       classify_cifar},
      {{.name = "conv_mnist",
        .description = "2 convolutions of stride 2, 16-32 channels, on MNIST at 14x14",
        .data = "mnist"},
       kMnist,
       [](const DataShape&) { return make_conv_net({.image_size = kSide, .widths = {16, 32}}); },
       classify_idx},
      {{.name = "autoencoder_mnist",
        .description = "Autoencoder 196-128-32-128-196, squared error, on MNIST at 14x14",
        .data = "mnist"},
       kMnist,
       [](const DataShape&) {
         return make_mlp({.sizes = {kMnistPixels, 128, 32, 128, kMnistPixels}});
       },
       reconstruct_idx},
  };
}

ModelPtr character_transformer(const DataShape& text) {
  return make_transformer_lm(
      {.vocabulary = text.vocabulary,
       .context = kTransformerContext,
       .transformer = {.width = 48, .heads = 2, .layers = 2, .causal = true}});
}

std::vector<TaskEntry> language_tasks() {
  return {
      {{.name = "char_lm",
        .description = "Causal Transformer, width 48, 2 layers, on characters of Tiny Shakespeare "
                       "or of your text",
        .default_batch = 16,
        .data = "tinyshakespeare",
        .own_data = kTextFile},
       kShakespeare,
       character_transformer,
       predict_with_transformer},
      {{.name = "gru_lm",
        .description = "GRU of 64 units on characters of Tiny Shakespeare or of your text",
        .default_batch = 16,
        .data = "tinyshakespeare",
        .own_data = kTextFile},
       kShakespeare,
       [](const DataShape& text) {
         return make_gru_lm({.vocabulary = text.vocabulary, .embedding = 32, .hidden = 64});
       },
       predict_with_gru},
      {{.name = "char_lm_synthetic",
        .description = "Causal Transformer, width 48, 2 layers, on a synthetic language",
        .default_batch = 16},
       kSynthetic,
       character_transformer,
       predict_synthetic},
  };
}

const std::vector<TaskEntry>& entries() {
  static const std::vector<TaskEntry> list = [] {
    std::vector<TaskEntry> all;
    for (const auto& part : {digit_tasks(), image_tasks(), own_image_tasks(), language_tasks(),
                             unseen_tasks(), flt_tasks()}) {
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }();
  return list;
}

/// The entry of "NAME" or "NAME:KIND-POSITION".
TaskEntry find_entry(const std::string& name) {
  const size_t colon = name.find(':');
  const std::string base = name.substr(0, colon);
  std::vector<std::string> known;
  for (const TaskEntry& entry : entries()) {
    if (entry.info.name == base) {
      if (colon == std::string::npos) return entry;
      if (!entry.info.attention.empty()) return flt_task(base, name.substr(colon + 1));
      refuse("task", base + " without a suffix", in_quotes(name));
    }
    known.push_back(entry.info.name);
  }
  refuse_choice("task", name, known);
}

/// "a folder "tinyshakespeare" in DIR, or a text file": what --data may name.
std::string wanted(const TaskInfo& info) {
  std::string text;
  if (!info.data.empty()) text = "with a folder \"" + info.data + "\"";
  if (!info.own_data.empty()) text += (text.empty() ? "with " : " or ") + info.own_data;
  return text;
}

/// Where the task's data are: below the folder --data, or there itself.
std::string data_path(const TaskInfo& info, const std::string& data) {
  namespace fs = std::filesystem;
  if (info.data.empty() && info.own_data.empty()) return {};
  const std::string needs = "[task] " + info.name + " needs --data " + wanted(info) + ", expected ";
  if (data.empty()) throw InputError(needs + "--data PATH, got none");
  if (info.data.empty()) return data;
  std::error_code error;
  if (!info.own_data.empty() && fs::is_regular_file(data, error)) return data;
  const std::string folder = data + "/" + info.data;
  if (fs::is_directory(folder, error)) return folder;
  const bool present = fs::exists(data, error);
  if (!present && !info.own_data.empty()) {
    throw InputError(needs + data + ", got no such file or folder");
  }
  throw InputError(needs + folder + ", got no such folder");
}

}  // namespace

std::vector<TaskInfo> task_list() {
  std::vector<TaskInfo> list;
  for (const TaskEntry& entry : entries()) {
    list.push_back(entry.info);
    list.back().num_params = entry.published_model()->num_params();
  }
  return list;
}

TaskInfo task_info(const std::string& name) {
  TaskEntry entry = find_entry(name);
  entry.info.num_params = entry.published_model()->num_params();
  return entry.info;
}

std::shared_ptr<const Task> make_task(const std::string& name, const std::string& data) {
  const TaskEntry entry = find_entry(name);
  return entry.make(entry, data_path(entry.info, data));
}

}  // namespace mnemosyne::tasks
