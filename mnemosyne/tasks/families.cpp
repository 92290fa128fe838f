#include "mnemosyne/tasks/families.h"

#include <utility>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/tasks/data/digits.h"
#include "mnemosyne/tasks/image_tasks.h"
#include "mnemosyne/tasks/language_task.h"
#include "mnemosyne/tasks/quadratic.h"
#include "mnemosyne/tasks/stacked/conv_net.h"
#include "mnemosyne/tasks/stacked/gru_lm.h"
#include "mnemosyne/tasks/stacked/mixer.h"
#include "mnemosyne/tasks/stacked/mlp.h"
#include "mnemosyne/tasks/stacked/transformer_lm.h"
#include "mnemosyne/tasks/stacked/vit.h"
#include "mnemosyne/tasks/teacher.h"

namespace mnemosyne::tasks {
namespace {

using TaskPtr = std::shared_ptr<const Task>;

constexpr int64_t kPixels = 64, kClasses = 10;

Activation draw_activation(Random& random) {
  return random.choose(
      {Activation::kRelu, Activation::kTanh, Activation::kGelu, Activation::kSigmoid});
}

/// Digits with the classes renamed. A third of the runs see few examples without noise many times
/// and so interpolate them: what happens there, a loss near zero, is not to be a surprise for a
/// learned optimizer. The others see all of them, some with noise on images or labels.
ImageBatchOptions draw_digit_batches(Random& random, int64_t smallest, int64_t largest) {
  ImageBatchOptions options{
      .batch_size = random.choose({smallest, 2 * smallest, 4 * smallest, largest}),
      .label_map = permutation(kClasses, random.bits())};
  if (random.chance(1.0 / 3)) {
    options.train_size = static_cast<int64_t>(random.log_uniform(64, 1500));
  } else {
    if (random.chance(0.5)) options.input_noise = random.uniform(0.1, 1.0);
    if (random.chance(0.3)) options.label_noise = random.uniform(0.05, 0.4);
  }
  return options;
}

TaskPtr sample_quadratic(std::string name, Random& random) {
  return make_quadratic(std::move(name),
                        {.rows = random.between(4, 24),
                         .columns = random.between(4, 24),
                         .condition = random.log_uniform(10, 1e5),
                         .noise = random.chance(0.3) ? 0.0 : random.log_uniform(0.01, 1.0),
                         .seed = random.bits()});
}

TaskPtr sample_mlp(std::string name, Random& random) {
  const int64_t depth = random.between(1, 7);
  const auto width = static_cast<int64_t>(random.log_uniform(8, depth > 3 ? 97 : 257));
  MlpOptions options{.sizes = {kPixels}, .activation = draw_activation(random)};
  options.sizes.insert(options.sizes.end(), depth, width);
  options.sizes.push_back(kClasses);
  return make_classification(std::move(name), make_mlp(options), digits(),
                             draw_digit_batches(random, 8, 128));
}

TaskPtr sample_conv(std::string name, Random& random) {
  const int64_t width = random.choose({4, 8, 16, 24});
  const ConvNetOptions options{
      .widths = random.chance(0.5) ? std::vector{width} : std::vector{width, 2 * width},
      .activation = draw_activation(random)};
  return make_classification(std::move(name), make_conv_net(options), digits(),
                             draw_digit_batches(random, 4, 32));
}

TaskPtr sample_vit(std::string name, Random& random) {
  const int64_t patch = random.choose({2, 4});
  const VitOptions options{
      .patch_size = patch,
      .transformer = {.width = random.choose({8, 16, 32, patch == 2 ? 24 : 48}),
                      .heads = random.choose({1, 2, 4}),
                      .layers = random.between(1, patch == 2 ? 2 : 3),
                      .joint_projection = random.chance(0.3)}};
  // Sixteen patches cost four times as much as four.
  return make_classification(std::move(name), make_vit(options), digits(),
                             draw_digit_batches(random, patch == 2 ? 2 : 4, patch == 2 ? 16 : 32));
}

TaskPtr sample_lm(std::string name, Random& random) {
  const int64_t context = random.choose({16, 24, 32});
  const SyntheticTextOptions text{.alphabet = random.between(16, 40), .length = 50'000};
  const TransformerLmOptions options{.vocabulary = text.alphabet,
                                     .context = context,
                                     .transformer = {.width = random.choose({8, 16, 32, 48}),
                                                     .heads = random.choose({1, 2, 4}),
                                                     .layers = random.between(1, 2),
                                                     .causal = true,
                                                     .joint_projection = random.chance(0.3)}};
  return make_language_task(std::move(name), make_transformer_lm(options),
                            std::make_shared<const TextData>(synthetic_text(random.bits(), text)),
                            {.context = context, .batch_size = random.choose({64, 128}) / context});
}

TaskPtr sample_autoencoder(std::string name, Random& random) {
  const int64_t hidden = random.choose({16, 32, 64, 128}), code = random.between(2, 12);
  const MlpOptions options{.sizes = random.chance(0.4)
                                        ? std::vector{kPixels, code, kPixels}
                                        : std::vector{kPixels, hidden, code, hidden, kPixels},
                           .activation = draw_activation(random)};
  return make_reconstruction(std::move(name), make_mlp(options), digits(),
                             {.batch_size = random.choose({8, 16, 32, 64})});
}

/// Smooth random functions of normal inputs, fresh ones in every step, mostly with noise: nothing
/// to interpolate, and networks far wider than their task asks for.
TaskPtr sample_function(std::string name, Random& random) {
  const int64_t in = random.between(4, 48), out = random.between(1, 12);
  const bool classify = out > 1 && random.chance(0.4);
  TeacherOptions options{.teacher = {.sizes = {in, random.choose({32, 64, 128}), out},
                                     .activation = Activation::kSine},
                         .student = {.sizes = {in}, .activation = draw_activation(random)},
                         .classify = classify,
                         .target_noise = random.chance(0.7) ? random.uniform(0.05, 1.0) : 0.0,
                         .batch_size = random.choose({16, 32, 64, 128}),
                         .seed = mix_seeds(random.bits(), 0x66756e)};
  std::vector<int64_t>& sizes = options.student.sizes;
  const auto width = static_cast<int64_t>(random.log_uniform(16, 193));
  sizes.insert(sizes.end(), random.between(1, 5), width);
  sizes.push_back(out);
  return make_teacher(std::move(name), options);
}

TaskPtr sample_rnn_lm(std::string name, Random& random) {
  const SyntheticTextOptions text{
      .alphabet = random.between(12, 48), .length = 50'000, .words = 150};
  const GruLmOptions options{.vocabulary = text.alphabet,
                             .embedding = random.choose({8, 16}),
                             .hidden = random.choose({16, 48, 96})};
  // Its own seeds: no language of the lm family appears here.
  const uint64_t seed = mix_seeds(random.bits(), 0x726e6e);
  return make_language_task(std::move(name), make_gru_lm(options),
                            std::make_shared<const TextData>(synthetic_text(seed, text)),
                            {.context = random.choose({12, 20}), .batch_size = 8});
}

TaskPtr sample_teacher(std::string name, Random& random) {
  const int64_t in = random.between(4, 32), out = random.between(2, 10);
  TeacherOptions options{
      .teacher = {.sizes = {in, random.between(8, 64), out}, .activation = Activation::kTanh},
      .student = {.sizes = {in}, .activation = draw_activation(random)},
      .classify = random.chance(0.5),
      .target_noise = random.chance(0.5) ? random.uniform(0.05, 0.5) : 0.0,
      .batch_size = random.choose({16, 32, 64}),
      .seed = random.bits()};
  std::vector<int64_t>& sizes = options.student.sizes;
  sizes.insert(sizes.end(), random.between(1, 3), random.choose({16, 64, 256}));
  sizes.push_back(out);
  return make_teacher(std::move(name), options);
}

TaskPtr sample_mixer(std::string name, Random& random) {
  const MixerOptions options{.patch_size = random.choose({2, 4}),
                             .width = random.choose({16, 32, 64}),
                             .token_hidden = random.choose({8, 16}),
                             .channel_hidden = random.choose({32, 64}),
                             .layers = random.between(1, 2)};
  return make_classification(std::move(name), make_mixer(options), digits(),
                             draw_digit_batches(random, 4, 16));
}

/// A family is a name and a function that draws a task.
class SampledFamily : public TaskFamily {
 public:
  using Sample = TaskPtr (*)(std::string name, Random& random);

  SampledFamily(std::string name, Sample sample) : name_(std::move(name)), sample_(sample) {}

  std::string name() const override { return name_; }

  TaskPtr sample(uint64_t seed) const override {
    Random random(mix_seeds(seed, 0));
    return sample_(name_ + "/" + std::to_string(seed), random);
  }

 private:
  std::string name_;
  Sample sample_;
};

using Families = std::vector<std::shared_ptr<const TaskFamily>>;

std::shared_ptr<const TaskFamily> family(std::string name, SampledFamily::Sample sample) {
  return std::make_shared<SampledFamily>(std::move(name), sample);
}

}  // namespace

Families meta_training_families() {
  return {family("quadratic", sample_quadratic),
          family("mlp", sample_mlp),
          family("conv", sample_conv),
          family("vit", sample_vit),
          family("lm", sample_lm),
          family("autoencoder", sample_autoencoder),
          family("function", sample_function)};
}

Families validation_families() {
  return {family("rnn_lm", sample_rnn_lm), family("teacher", sample_teacher),
          family("mixer", sample_mixer)};
}

std::shared_ptr<const TaskFamily> make_family(const std::string& name) {
  Choices<std::shared_ptr<const TaskFamily>> families;
  for (const Families& list : {meta_training_families(), validation_families()}) {
    for (const auto& entry : list) families.emplace_back(entry->name(), entry);
  }
  return one_of("family", name, families);
}

}  // namespace mnemosyne::tasks
