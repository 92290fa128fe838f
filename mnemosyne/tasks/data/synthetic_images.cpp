#include "mnemosyne/tasks/data/synthetic_images.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <numbers>

#include "mnemosyne/core/random.h"

namespace mnemosyne::tasks {
namespace {

constexpr int64_t kWaves = 6;    // of a pattern
constexpr int64_t kFastest = 4;  // periods across the image, at most
constexpr double kGrey = 128.0, kContrast = 40.0;
constexpr double kBackground = 0.4, kSlowest = 1.0;

// N = images, C = channels, H and W = height and width.

class Painter {
 public:
  Painter(uint64_t seed, const SyntheticImageOptions& options)
      : options_(options), generator_(tensor_generator(seed)) {
    const int64_t count = options.num_classes * options.patterns;
    patterns_ = waves(count, kFastest);
  }

  ImageSet paint(int64_t size) {
    const auto& o = options_;
    const at::Tensor labels = at::randint(o.num_classes, {size}, generator_, at::kLong);
    const at::Tensor which =
        labels.mul(o.patterns).add(at::randint(o.patterns, {size}, generator_, at::kLong));
    at::Tensor images = moved(patterns_.index_select(0, which));
    const at::Tensor strength =
        at::empty({size, 1, 1, 1}, at::kFloat).uniform_(0.6, 1.4, generator_);
    images = images.mul(strength)
                 .add(waves(size, kSlowest), kBackground)
                 .add(at::randn(images.sizes(), generator_, at::kFloat), o.noise);
    return {images.mul(kContrast).add(kGrey).clamp(0, 255).round().to(at::kByte), labels};
  }

 private:
  /// Sums of periodic waves of at most so many periods, of variance one: [count,C,H,W].
  at::Tensor waves(int64_t count, double fastest) {
    const auto& o = options_;
    const auto draw = [&](double low, double high) {
      return at::empty({count, o.channels, kWaves, 1, 1}, at::kFloat)
          .uniform_(low, high, generator_);
    };
    const auto across = [](int64_t size) {
      return at::arange(size, at::kFloat).mul(2 * std::numbers::pi / static_cast<double>(size));
    };
    // Whole periods, so that a pattern which is moved has no seam.
    const at::Tensor rows = draw(-fastest - 0.5, fastest + 0.5).round();
    const at::Tensor columns = draw(-fastest - 0.5, fastest + 0.5).round();
    const at::Tensor phase = draw(0, 2 * std::numbers::pi);
    const at::Tensor angle =
        rows.mul(across(o.height).view({-1, 1})).add(columns.mul(across(o.width))).add(phase);
    return angle.sin().sum(2).mul(std::sqrt(2.0 / static_cast<double>(kWaves)));
  }

  /// Every image [N,C,H,W] by as many rows and columns as chance says.
  at::Tensor moved(const at::Tensor& images) {
    const auto& o = options_;
    const int64_t count = images.size(0);
    const auto places = [&](int64_t size) {
      const auto farthest = static_cast<int64_t>(o.moves * static_cast<double>(size));
      const at::Tensor by = at::randint(farthest + 1, {count, 1}, generator_, at::kLong);
      return at::arange(size, at::kLong).add(by).remainder(size);
    };
    const at::Tensor rows = places(o.height), columns = places(o.width);
    const at::Tensor index =
        rows.unsqueeze(2).mul(o.width).add(columns.unsqueeze(1)).view({count, 1, -1});
    return images.flatten(2)
        .gather(2, index.expand({count, o.channels, o.height * o.width}))
        .view(images.sizes());
  }

  SyntheticImageOptions options_;
  at::Generator generator_;
  at::Tensor patterns_;  // [classes * patterns,C,H,W]
};

}  // namespace

ImageData synthetic_images(uint64_t seed, const SyntheticImageOptions& options) {
  Painter painter(mix_seeds(seed, 0), options);
  ImageData data{.train = painter.paint(options.train_size),
                 .test = painter.paint(options.test_size),
                 .num_classes = options.num_classes};
  measure(data);
  return data;
}

}  // namespace mnemosyne::tasks
