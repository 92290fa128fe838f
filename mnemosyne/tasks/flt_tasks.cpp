#include "mnemosyne/tasks/flt_tasks.h"

#include <algorithm>
#include <utility>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/attention_options.h"
#include "mnemosyne/nn/causal_lm.h"
#include "mnemosyne/nn/point_encoder.h"
#include "mnemosyne/nn/position/positions.h"
#include "mnemosyne/nn/vit.h"
#include "mnemosyne/tasks/data/datasets.h"
#include "mnemosyne/tasks/data/own_images.h"
#include "mnemosyne/tasks/molecule_task.h"
#include "mnemosyne/tasks/stacked/module_model.h"

namespace mnemosyne::tasks {
namespace {

using ModelPtr = std::shared_ptr<const Model>;
using TaskPtr = std::shared_ptr<const Task>;

constexpr const char* kDefaultAttention = "linear-flt";
constexpr int64_t kCharacterContext = 128;
constexpr int64_t kWordContext = 64;
constexpr DataShape kWords{.vocabulary = 2000};

/// Atomic numbers in the sets of molecules: H, C, N, O, S.
std::vector<int64_t> elements() { return {1, 6, 7, 8, 16}; }

ModelPtr language_model(nn::CausalLMOptions options) {
  return make_module_model([options](uint64_t seed) mutable {
    options.seed = seed;
    nn::CausalLM model(options);
    return Network{model.ptr(), [model](const at::Tensor& tokens) mutable {
                     return model->forward(tokens).flatten(0, 1);
                   }};
  });
}

ModelPtr image_model(nn::ViTOptions options) {
  return make_module_model([options](uint64_t seed) mutable {
    options.seed = seed;
    nn::ViT model(options);
    return Network{model.ptr(),
                   [model](const at::Tensor& images) mutable { return model->forward(images); }};
  });
}

/// Of atoms [B,N,4] as MoleculeSet gives them.
ModelPtr molecule_model(nn::PointEncoderOptions options) {
  return make_module_model([options](uint64_t seed) mutable {
    options.seed = seed;
    nn::PointEncoder model(options);
    return Network{model.ptr(), [model](const at::Tensor& atoms) mutable {
                     const at::Tensor types = atoms.select(2, 0);
                     return model->forward(types.clamp_min(0).to(at::kLong), atoms.narrow(2, 1, 3),
                                           types.ge(0));
                   }};
  });
}

TaskPtr predict_text(const TaskEntry& entry, const std::string& path) {
  return predict_characters(entry, path, kCharacterContext);
}

TaskPtr predict_frequent_words(const TaskEntry& entry, const std::string& path) {
  return predict_words(entry, path, kWordContext, kWords.vocabulary);
}

TaskPtr predict_qm7(const TaskEntry& entry, const std::string& folder) {
  return make_molecule_task(entry.info.name, entry.published_model(), load_qm7(folder, elements()),
                            {.batch_size = entry.info.default_batch});
}

TaskPtr predict_rmd17(const TaskEntry& entry, const std::string& folder) {
  return make_molecule_task(entry.info.name, entry.published_model(),
                            load_rmd17(folder, elements()),
                            {.batch_size = entry.info.default_batch});
}

std::vector<TaskEntry> text_tasks(nn::AttentionOptions attention) {
  attention.fourier.phase = true;  // heads that look for a certain earlier token
  attention.fourier.initial_amplitude = 2.0;
  attention.fourier.num_frequencies = 128;  // all waves of the context
  return {
      {{.name = "flt_char_lm",
        .description = "Causal Transformer, width 64, 2 layers, context 128, on characters of "
                       "Tiny Shakespeare or of your text",
        .default_batch = 12,
        .data = "tinyshakespeare",
        .own_data = kTextFile},
       kShakespeare,
       [attention](const DataShape& text) {
         return language_model(
             {.vocabulary = text.vocabulary, .context = kCharacterContext, .attention = attention});
       },
       predict_text},
      {{.name = "flt_word_lm",
        .description = "Causal Transformer, width 64, 2 layers, context 64, on the 2,000 most "
                       "frequent words of WikiText or of your text",
        .default_batch = 12,
        .data = "wikitext2",
        .own_data = kTextFile},
       kWords,
       [attention](const DataShape& text) {
         return language_model(
             {.vocabulary = text.vocabulary, .context = kWordContext, .attention = attention});
       },
       predict_frequent_words},
  };
}

std::vector<TaskEntry> image_tasks(nn::AttentionOptions attention) {
  attention.fourier.phase = true;             // patches matter by the side on which they are
  attention.fourier.initial_amplitude = 8.0;  // local from the start
  attention.linear.exact_length = 64;         // no more patches than waves of so sharp a mask
  const auto mnist = [attention](const DataShape&) {
    return image_model({.image_size = kSide, .width = 64, .attention = attention});
  };
  return {
      {{.name = "flt_vit_digits",
        .description = "Vision Transformer, width 32, 2 layers, on 8x8 handwritten digits",
        .default_batch = 32},
       kDigits,
       [attention](const DataShape&) {
         return image_model({.image_size = 8, .width = 32, .attention = attention});
       },
       classify_digits},
      {{.name = "flt_vit_mnist",
        .description = "Vision Transformer, width 64, 2 layers, on MNIST at 14x14",
        .default_batch = 32,
        .data = "mnist"},
       kMnist,
       mnist,
       classify_idx},
      {{.name = "flt_vit_fashion",
        .description = "Vision Transformer, width 64, 2 layers, on Fashion-MNIST at 14x14",
        .default_batch = 32,
        .data = "fashion_mnist"},
       kMnist,
       mnist,
       classify_idx},
      {{.name = "flt_vit_cifar",
        .description = "Vision Transformer, width 64, 3 layers, patches of 4x4, on CIFAR-10",
        .default_batch = 32,
        .data = "cifar10"},
       kCifar,
       [attention](const DataShape&) {
         return image_model({.image_size = 32,
                             .channels = 3,
                             .patch_size = 4,
                             .layers = 3,
                             .attention = attention});
       },
       classify_cifar},
      {{.name = "flt_vit_images",
        .description = "Vision Transformer, width 64, 2 layers, 8x8 patches, on your images",
        .default_batch = 32,
        .own_data = kImageFolder},
       kOwnImages,
       [attention](const DataShape& images) {
         const PatchGrid grid = patch_grid(images);
         return padded_to_square(image_model({.image_size = grid.side,
                                              .channels = images.channels,
                                              .patch_size = grid.patch,
                                              .num_classes = images.num_classes,
                                              .attention = attention}),
                                 images, grid.side);
       },
       classify_images},
  };
}

std::vector<TaskEntry> molecule_tasks(nn::AttentionOptions attention) {
  attention.linear.exact_length = 64;  // atoms are fewer than waves of a mask as sharp as a bond
  attention.fourier.initial_amplitude = 4.0;
  const auto model = [attention](const DataShape&) {
    return molecule_model({.num_types = static_cast<int64_t>(elements().size()),
                           .layers = 3,
                           .attention = attention});
  };
  return {
      {{.name = "flt_qm7",
        .description =
            "Transformer over atoms, width 64, 3 layers, on energies of QM7 beyond their "
            "composition; loss: mean absolute error, 1 is their deviation",
        .default_batch = 32,
        .data = "qm7_xyz"},
       {},
       model,
       predict_qm7},
      {{.name = "flt_rmd17",
        .description = "The same on energies of aspirin in motion (rMD17); 1 is their deviation",
        .default_batch = 32,
        .data = "rmd17_aspirin"},
       {},
       model,
       predict_rmd17},
  };
}

/// Twice as many features as a head has dimensions, and waves for masks that are not smooth.
nn::AttentionOptions parse_attention(const std::string& text) {
  const size_t dash = text.find('-');
  nn::AttentionOptions options{.kind = text.substr(0, dash),
                               .position = dash == std::string::npos ? "" : text.substr(dash + 1),
                               .linear = {.num_features = 32}};
  options.fourier.num_frequencies = 64;
  return options;
}

std::vector<TaskEntry> with_attention(const std::string& attention) {
  std::vector<TaskEntry> all;
  const nn::AttentionOptions options = parse_attention(attention);
  for (auto& part : {text_tasks(options), image_tasks(options), molecule_tasks(options)}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  for (TaskEntry& entry : all) entry.info.attention = attention;
  return all;
}

TaskEntry find_entry(const std::string& name, const std::string& attention) {
  std::vector<TaskEntry> all = with_attention(attention);
  return *std::find_if(all.begin(), all.end(),
                       [&](const TaskEntry& entry) { return entry.info.name == name; });
}

}  // namespace

std::vector<TaskEntry> flt_tasks() { return with_attention(kDefaultAttention); }

std::vector<std::string> flt_attentions(const std::string& name) {
  std::vector<std::string> valid;
  for (const bool linear : {true, false}) {
    for (const std::string& position : nn::position_names(linear)) {
      const std::string attention = (linear ? "linear-" : "softmax-") + position;
      try {
        find_entry(name, attention).published_model();
      } catch (const InputError&) {
        continue;  // the model knows what it has no such attention for
      }
      valid.push_back(attention);
    }
  }
  return valid;
}

TaskEntry flt_task(const std::string& name, const std::string& attention) {
  TaskEntry entry = find_entry(name, attention);
  try {
    entry.published_model();
  } catch (const InputError&) {
    refuse("task", name + ":KIND-POSITION with one of " + listed(flt_attentions(name)),
           in_quotes(attention));
  }
  entry.info.name += ":" + attention;
  return entry;
}

}  // namespace mnemosyne::tasks
