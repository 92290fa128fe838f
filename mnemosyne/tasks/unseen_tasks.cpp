#include "mnemosyne/tasks/unseen_tasks.h"

#include <string>
#include <utility>

#include "mnemosyne/tasks/data/datasets.h"
#include "mnemosyne/tasks/data/solubility.h"
#include "mnemosyne/tasks/row_task.h"
#include "mnemosyne/tasks/stacked/conv_net.h"
#include "mnemosyne/tasks/stacked/gru_lm.h"
#include "mnemosyne/tasks/stacked/mixer.h"
#include "mnemosyne/tasks/stacked/mlp.h"
#include "mnemosyne/tasks/stacked/resnet.h"
#include "mnemosyne/tasks/stacked/text_encoder.h"
#include "mnemosyne/tasks/stacked/transformer_lm.h"

namespace mnemosyne::tasks {
namespace {

using TaskPtr = std::shared_ptr<const Task>;

constexpr int64_t kPixels = kSide * kSide, kColours = 3 * 32 * 32;
constexpr int64_t kWordContext = 32;
constexpr int64_t kDescriptors = 6 + static_cast<int64_t>(kCountedInSmiles.size());
constexpr DataShape kFrequentWords{.vocabulary = 1000};

TaskPtr predict_frequent_words(const TaskEntry& entry, const std::string& path) {
  return predict_words(entry, path, kWordContext, kFrequentWords.vocabulary);
}

TaskPtr classify_questions(const TaskEntry& entry, const std::string& folder) {
  const auto data = load_questions(folder);
  auto model = entry.model({.vocabulary = data->vocabulary, .num_classes = data->num_classes});
  return make_row_task(entry.info.name, std::move(model), data, entry.info.default_batch);
}

TaskPtr predict_solubility(const TaskEntry& entry, const std::string& folder) {
  return make_row_task(entry.info.name, entry.published_model(), load_solubility(folder),
                       entry.info.default_batch);
}

std::vector<TaskEntry> unseen_image_tasks() {
  return {
      {{.name = "resnet_cifar",
        .description = "Residual network with batch norm, 3 stages of 8-16-32 channels, on "
                       "CIFAR-10",
        .default_batch = 32,
        .data = "cifar10"},
       kCifar,
       [](const DataShape&) { return make_resnet({.channels = 3, .widths = {8, 16, 32}}); },
       classify_cifar},
      {{.name = "resnet_fashion",
        .description = "Residual network without norms, 2 stages of 2 blocks, 8-16 channels, GELU, "
                       "on Fashion-MNIST at 14x14",
        .default_batch = 32,
        .data = "fashion_mnist"},
       kMnist,
       [](const DataShape&) {
         return make_resnet({.channels = 1,
                             .widths = {8, 16},
                             .blocks = 2,
                             .activation = Activation::kGelu,
                             .batch_norm = false});
       },
       classify_idx},
      {{.name = "mixer_fashion",
        .description = "MLP-Mixer, width 32, 2 layers, on Fashion-MNIST at 14x14",
        .default_batch = 32,
        .data = "fashion_mnist"},
       kMnist,
       [](const DataShape&) {
         return make_mixer({.image_size = kSide,
                            .patch_size = 2,
                            .width = 32,
                            .token_hidden = 32,
                            .channel_hidden = 64,
                            .layers = 2});
       },
       classify_idx},
      {{.name = "conv_fashion",
        .description = "3 convolutions of stride 2, 16-32-32 channels, GELU, on Fashion-MNIST at "
                       "14x14",
        .data = "fashion_mnist"},
       kMnist,
       [](const DataShape&) {
         return make_conv_net(
             {.image_size = kSide, .widths = {16, 32, 32}, .activation = Activation::kGelu});
       },
       classify_idx},
      {{.name = "mlp_cifar_norm",
        .description = "MLP with 4 residual hidden layers of 128 and batch norm, on CIFAR-10",
        .data = "cifar10"},
       kCifar,
       [](const DataShape&) {
         return make_mlp(
             {.sizes = {kColours, 128, 128, 128, 128, 10}, .norm = Norm::kBatch, .residual = true});
       },
       classify_cifar},
      {{.name = "autoencoder_fashion",
        .description = "Autoencoder 196-256-64-16-64-256-196, tanh, squared error, on "
                       "Fashion-MNIST at 14x14",
        .data = "fashion_mnist"},
       kMnist,
       [](const DataShape&) {
         return make_mlp(
             {.sizes = {kPixels, 256, 64, 16, 64, 256, kPixels}, .activation = Activation::kTanh});
       },
       reconstruct_idx},
  };
}

std::vector<TaskEntry> unseen_text_tasks() {
  return {
      {{.name = "text_trec",
        .description = "Transformer that sees both sides, width 32, 2 layers, on the classes of "
                       "TREC's questions",
        .default_batch = 32,
        .data = "trec"},
       {.vocabulary = 1000, .num_classes = 6},
       [](const DataShape& text) {
         return make_text_encoder({.vocabulary = text.vocabulary, .num_classes = text.num_classes});
       },
       classify_questions},
      {{.name = "tied_word_lm",
        .description = "Causal Transformer with tied embeddings, width 64, 2 layers, on the 1,000 "
                       "most frequent words of WikiText-2 or of your text",
        .default_batch = 16,
        .data = "wikitext2",
        .own_data = kTextFile},
       kFrequentWords,
       [](const DataShape& text) {
         return make_transformer_lm(
             {.vocabulary = text.vocabulary,
              .context = kWordContext,
              .transformer = {.width = 64, .heads = 2, .layers = 2, .causal = true},
              .tied = true});
       },
       predict_frequent_words},
      {{.name = "gru_word_lm",
        .description = "GRU of 96 units on the 1,000 most frequent words of WikiText-2 or of your "
                       "text",
        .default_batch = 16,
        .data = "wikitext2",
        .own_data = kTextFile},
       kFrequentWords,
       [](const DataShape& text) {
         return make_gru_lm({.vocabulary = text.vocabulary, .embedding = 48, .hidden = 96});
       },
       predict_frequent_words},
  };
}

std::vector<TaskEntry> unseen_table_tasks() {
  return {
      {{.name = "mlp_solubility",
        .description = "MLP with 4 hidden layers of 128 on the solubility of molecules (ESOL), "
                       "squared error",
        .default_batch = 32,
        .data = "esol"},
       {},
       [](const DataShape&) { return make_mlp({.sizes = {kDescriptors, 128, 128, 128, 128, 1}}); },
       predict_solubility},
  };
}

}  // namespace

std::vector<TaskEntry> unseen_tasks() {
  std::vector<TaskEntry> all;
  for (const auto& part : {unseen_image_tasks(), unseen_text_tasks(), unseen_table_tasks()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

}  // namespace mnemosyne::tasks
