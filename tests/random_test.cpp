#include "mnemosyne/core/random.h"

#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <optional>

#include "testing.h"

namespace mnemosyne {
namespace {

// The values are those of the definition in Python's integers: recorded runs hang on each of them.

TEST(Random, IsSplitMix64) {
  Random random(1234567);
  EXPECT_EQ(random.bits(), 6457827717110365317U);
  EXPECT_EQ(random.bits(), 3203168211198807973U);
  EXPECT_EQ(random.bits(), 9817491932198370423U);
}

TEST(Random, SplitsSeedsAsRecorded) {
  EXPECT_EQ(mix_seeds(7, 0), 0x6e7ce04a63ac7dd2U);
  EXPECT_EQ(mix_seeds(7, 3), 0x9e7e09d805fd31dcU);
  EXPECT_EQ(mix_seeds(~uint64_t{0}, ~uint64_t{0}), 0x5dc20aa7b2a27137U);
  EXPECT_EQ(derive_seed(11, {1, 0, 5}), 0x9fdae2ac3fc47d2fU);
  EXPECT_EQ(derive_seed(11, {}), 11U);
  EXPECT_EQ(part_seed(7, 0), 0x63cbe1e459320dd7U);
  EXPECT_EQ(part_seed(7, 3), 0x953aeb70673e29cbU);
}

TEST(Random, DrawsAsRecorded) {
  Random uniform(5);
  EXPECT_EQ(uniform.uniform(), 0.386768045983934);
  EXPECT_EQ(uniform.uniform(), 0.7523070158382239);
  EXPECT_DOUBLE_EQ(Random(5).normal(), 0.014334745996352224);
  Random whole(9);
  for (const int64_t expected : {4, 5, 3, 5, 3, 2, 4, 5}) EXPECT_EQ(whole.between(2, 5), expected);
  EXPECT_EQ(permutation(10, 3), (std::vector<int64_t>{5, 7, 2, 8, 3, 9, 0, 4, 6, 1}));
  EXPECT_TRUE(permutation(0, 3).empty());
}

TEST(Random, FillsTensorsWithoutTheDefaultGenerator) {
  torch::manual_seed(1);
  const at::Tensor expected = at::randn({3, 2}) * 0.5;
  torch::manual_seed(2);
  const at::Tensor next = at::rand({1});
  torch::manual_seed(2);
  EXPECT_TRUE(at::equal(seeded_normal({3, 2}, 0.5, 1), expected));
  EXPECT_TRUE(at::equal(at::rand({1}), next));
}

TEST(Random, OptionsWithoutASeedDrawOneFromTheDefaultGenerator) {
  struct Options {
    std::optional<uint64_t> seed{};
  };
  EXPECT_EQ(with_seed(Options{7}).seed, 7U);
  torch::manual_seed(3);
  const auto first = with_seed(Options{}).seed, second = with_seed(Options{}).seed;
  EXPECT_NE(first, second);
  torch::manual_seed(3);
  EXPECT_EQ(with_seed(Options{}).seed, first);
}

}  // namespace
}  // namespace mnemosyne
