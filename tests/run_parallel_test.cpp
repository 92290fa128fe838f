#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "mnemosyne/meta/parallel.h"

namespace mnemosyne::meta {
namespace {

TEST(RunParallel, RethrowsTheFirstErrorInOrderAndGivesThreadsBack) {
  const int threads = at::get_num_threads();
  try {
    run_parallel({3, 1, 2}, 3, [](int64_t i) {
      if (i != 3) throw std::runtime_error(std::to_string(i));
    });
    FAIL();
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "1");
  }
  EXPECT_EQ(at::get_num_threads(), threads);
}

TEST(RunInSlices, FinishesEveryItemInTheOrderOfItsSteps) {
  const std::vector<int64_t> lengths{40, 3, 0, 17, 9};
  for (const int64_t workers : {1, 2, 7}) {
    std::vector<std::vector<int64_t>> taken(lengths.size());
    const auto left = [&](int64_t i) { return lengths[i] - static_cast<int64_t>(taken[i].size()); };
    const auto advance = [&](int64_t i, int64_t steps) {
      EXPECT_LE(steps, left(i));
      EXPECT_EQ(at::get_num_threads(), 1);
      for (int64_t s = 0; s < steps; ++s) taken[i].push_back(static_cast<int64_t>(taken[i].size()));
    };
    run_in_slices(static_cast<int64_t>(lengths.size()), workers,
                  {.left = left, .advance = advance});
    for (size_t i = 0; i < lengths.size(); ++i) {
      ASSERT_EQ(static_cast<int64_t>(taken[i].size()), lengths[i]);
      for (int64_t s = 0; s < lengths[i]; ++s) EXPECT_EQ(taken[i][s], s);
    }
  }
}

TEST(RunInSlices, RethrowsTheFirstErrorByNumberWhenTheOthersAreDone) {
  std::vector<int64_t> left(4, 30);
  try {
    run_in_slices(4, 2,
                  {.left = [&](int64_t i) { return left[i]; },
                   .advance =
                       [&](int64_t i, int64_t steps) {
                         if (i % 2 == 1) throw std::runtime_error(std::to_string(i));
                         left[i] -= steps;
                       }});
    FAIL();
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "1");
  }
  EXPECT_EQ(left, (std::vector<int64_t>{0, 30, 0, 30}));
}

}  // namespace
}  // namespace mnemosyne::meta
