#include <utility>
#include <vector>

#include "mnemosyne/tasks/data/digits.h"
#include "mnemosyne/tasks/data/synthetic_images.h"
#include "mnemosyne/tasks/family_draws.h"
#include "mnemosyne/tasks/image_tasks.h"
#include "mnemosyne/tasks/stacked/conv_net.h"
#include "mnemosyne/tasks/stacked/mixer.h"
#include "mnemosyne/tasks/stacked/mlp.h"
#include "mnemosyne/tasks/stacked/resnet.h"
#include "mnemosyne/tasks/stacked/vit.h"

namespace mnemosyne::tasks {
namespace {

constexpr int64_t kPixels = 64, kClasses = 10;  // of a digit

/// Images with the classes renamed. A third of the runs see few examples without noise many times
/// and so interpolate them: what happens there, a loss near zero, is not to be a surprise for a
/// learned optimizer. The others see all of them, some with noise on images or labels.
ImageBatchOptions draw_image_batches(Random& random, int64_t smallest, int64_t largest) {
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

/// Images of a world of their own, each a draw of how many patterns and how much noise.
std::shared_ptr<const ImageData> draw_images(Random& random, int64_t channels) {
  const int64_t side = random.choose({8, 12});
  const SyntheticImageOptions options{.channels = channels,
                                      .height = side,
                                      .width = side,
                                      .patterns = random.between(1, 3),
                                      .moves = random.uniform(0.0, 0.25),
                                      .noise = random.uniform(0.1, 1.0)};
  return std::make_shared<const ImageData>(synthetic_images(random.bits(), options));
}

}  // namespace

TaskPtr sample_mlp(std::string name, Random& random) {
  const int64_t depth = random.between(1, 7);
  const auto width = static_cast<int64_t>(random.log_uniform(8, depth > 3 ? 97 : 257));
  const MlpOptions options{.sizes = layer_sizes(kPixels, depth, width, kClasses),
                           .activation = draw_activation(random)};
  return make_classification(std::move(name), make_mlp(options), digits(),
                             draw_image_batches(random, 8, 128));
}

/// As deep, but as networks are built today: norms, and layers that add to what they read.
TaskPtr sample_residual_mlp(std::string name, Random& random) {
  const auto data = draw_images(random, 1);
  const auto width = static_cast<int64_t>(random.log_uniform(12, 129));
  MlpOptions options{.activation = draw_activation(random),
                     .norm = draw_norm(random),
                     .residual = random.chance(0.7)};
  options.sizes = layer_sizes(data->train.images[0].numel(), random.between(2, 8), width, kClasses);
  return make_classification(std::move(name), make_mlp(options), data,
                             draw_image_batches(random, 8, 128));
}

TaskPtr sample_conv(std::string name, Random& random) {
  const int64_t width = random.choose({4, 8, 16, 24});
  const ConvNetOptions options{
      .widths = random.chance(0.5) ? std::vector{width} : std::vector{width, 2 * width},
      .activation = draw_activation(random)};
  return make_classification(std::move(name), make_conv_net(options), digits(),
                             draw_image_batches(random, 4, 32));
}

TaskPtr sample_resnet(std::string name, Random& random) {
  const int64_t width = random.choose({6, 8, 12});
  const ResNetOptions options{
      .channels = 3,
      .widths = random.chance(0.5) ? std::vector{width} : std::vector{width, 2 * width},
      .blocks = random.between(1, 2),
      .activation = random.choose({Activation::kRelu, Activation::kGelu}),
      .batch_norm = random.chance(0.7)};
  const ImageBatchOptions batches = draw_image_batches(random, 4, 16);
  return make_classification(std::move(name), make_resnet(options), draw_images(random, 3),
                             batches);
}

TaskPtr sample_signals(std::string name, Random& random) {
  constexpr int64_t kLength = 64;
  const SyntheticImageOptions signals{.channels = random.choose({1, 3}),
                                      .height = 1,
                                      .width = kLength,
                                      .patterns = random.between(1, 3),
                                      .moves = random.uniform(0.0, 0.5),
                                      .noise = random.uniform(0.1, 1.0)};
  const auto data = std::make_shared<const ImageData>(synthetic_images(random.bits(), signals));
  const int64_t width = random.choose({8, 16, 32});
  const ConvNetOptions options{.image_size = 1,
                               .image_width = kLength,
                               .channels = signals.channels,
                               .widths = std::vector<int64_t>(random.between(1, 4), width),
                               .activation = draw_activation(random)};
  return make_classification(std::move(name), make_conv_net(options), data,
                             draw_image_batches(random, 4, 32));
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
                             draw_image_batches(random, patch == 2 ? 2 : 4, patch == 2 ? 16 : 32));
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

TaskPtr sample_mixer(std::string name, Random& random) {
  const MixerOptions options{.patch_size = random.choose({2, 4}),
                             .width = random.choose({16, 32, 64}),
                             .token_hidden = random.choose({8, 16}),
                             .channel_hidden = random.choose({32, 64}),
                             .layers = random.between(1, 2)};
  return make_classification(std::move(name), make_mixer(options), digits(),
                             draw_image_batches(random, 4, 16));
}

}  // namespace mnemosyne::tasks
