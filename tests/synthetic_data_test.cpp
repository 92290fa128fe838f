#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <set>

#include "mnemosyne/tasks/data/synthetic_images.h"
#include "mnemosyne/tasks/teacher.h"
#include "tests/testing.h"

namespace mnemosyne::tasks {
namespace {

using mnemosyne::testing::close;
using mnemosyne::testing::identical;

// N = images.

/// Cosines [N,N] between images without their mean.
at::Tensor cosines(const ImageSet& set) {
  const at::Tensor rows = set.images.to(at::kFloat).flatten(1);
  const at::Tensor centred = rows - rows.mean(1, true);
  const at::Tensor unit = centred / centred.norm(2, 1, true);
  return unit.matmul(unit.t());
}

TEST(SyntheticImages, AreAFunctionOfTheSeed) {
  const SyntheticImageOptions options{.train_size = 50, .test_size = 20};
  const ImageData first = synthetic_images(1, options), again = synthetic_images(1, options);
  EXPECT_TRUE(identical(first.train.images, again.train.images));
  EXPECT_TRUE(identical(first.test.labels, again.test.labels));
  EXPECT_FALSE(at::equal(first.train.images, synthetic_images(2, options).train.images));
  EXPECT_EQ(first.train.images.sizes(), at::IntArrayRef({50, 1, 12, 12}));
  EXPECT_EQ(first.test.size(), 20);
  EXPECT_GE(first.train.labels.min().item<int64_t>(), 0);
  EXPECT_LT(first.train.labels.max().item<int64_t>(), 10);
}

TEST(SyntheticImages, OfAClassAreAlike) {
  const SyntheticImageOptions options{
      .channels = 2, .patterns = 1, .moves = 0.0, .noise = 0.1, .train_size = 200, .test_size = 10};
  const ImageData data = synthetic_images(5, options);
  const at::Tensor alike = cosines(data.train);
  const at::Tensor same = data.train.labels.unsqueeze(0).eq(data.train.labels.unsqueeze(1));
  EXPECT_GT(alike.masked_select(same).mean().item<double>(), 0.7);
  EXPECT_LT(alike.masked_select(same.logical_not()).abs().mean().item<double>(), 0.3);
}

TEST(SyntheticImages, SpreadWithPatternsMovesAndNoise) {
  const auto likeness = [](const SyntheticImageOptions& options) {
    const ImageData data = synthetic_images(6, options);
    const at::Tensor same = data.train.labels.unsqueeze(0).eq(data.train.labels.unsqueeze(1));
    return cosines(data.train).masked_select(same).mean().item<double>();
  };
  const SyntheticImageOptions plain{.patterns = 1, .moves = 0.0, .noise = 0.1, .train_size = 200};
  SyntheticImageOptions patterns = plain, moves = plain, noise = plain;
  patterns.patterns = 4;
  moves.moves = 1.0;
  noise.noise = 2.0;
  for (const auto& options : {patterns, moves, noise}) {
    EXPECT_LT(likeness(options), likeness(plain) - 0.2);
  }
}

TEST(SyntheticImages, MayBeSignals) {
  const ImageData data = synthetic_images(7, {.channels = 3, .height = 1, .width = 30});
  EXPECT_EQ(data.train.images.sizes(), at::IntArrayRef({2000, 3, 1, 30}));
  const at::Tensor normal = data.normalize(data.train.images);
  EXPECT_TRUE(close(normal.mean({0, 2, 3}), at::zeros({3}), {.atol = 1e-3}));
  EXPECT_TRUE(close(normal.std(), at::ones({}), {.rtol = 1e-3}));
}

TEST(TeacherTable, HasSoManyRowsWhoseNoiseStays) {
  const TeacherOptions options{.target_noise = 0.5, .batch_size = 8, .table_size = 24};
  const auto task = make_teacher("table", options);
  const auto stream = task->train_stream(3);
  std::set<float> inputs, targets;
  for (int64_t step = 0; step < 9; ++step) {
    const Batch batch = stream->at(step);
    for (int64_t i = 0; i < 8; ++i) {
      inputs.insert(batch[0][i][0].item<float>());
      targets.insert(batch[1][i][0].item<float>());
    }
  }
  EXPECT_EQ(inputs.size(), 24u);
  EXPECT_EQ(targets.size(), 24u);
  // Held out are other rows, without noise: those of the stream of fresh ones.
  TeacherOptions fresh = options;
  fresh.table_size = 0;
  const Batch held_out = task->validation_batches()[0];
  EXPECT_TRUE(identical(held_out[1], make_teacher("fresh", fresh)->validation_batches()[0][1]));
  for (int64_t i = 0; i < held_out[0].size(0); ++i) {
    EXPECT_EQ(inputs.count(held_out[0][i][0].item<float>()), 0u);
  }
}

}  // namespace
}  // namespace mnemosyne::tasks
