#include "mnemosyne/ops/parallel.h"

#include <ATen/Parallel.h>

#include <atomic>
#include <stdexcept>

#include "mnemosyne/meta/parallel.h"
#include "testing.h"

namespace mnemosyne::ops {
namespace {

/// Sets torch's number of threads for a scope.
class Threads {
 public:
  explicit Threads(int count) { at::set_num_threads(count); }
  ~Threads() { at::set_num_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_ = at::get_num_threads();
};

int64_t threads_of(int64_t count, int64_t grain) {
  const ThreadCount taking_part;
  parallel_for(0, count, grain, [](int64_t, int64_t) {});
  return taking_part.threads();
}

TEST(ParallelFor, RunsOnAsManyThreadsAsAreSetAndPay) {
  for (const int threads : {1, 2, 3, 4}) {
    const Threads set(threads);
    EXPECT_EQ(threads_of(64, 1), threads);
    EXPECT_EQ(threads_of(64, 32), std::min(threads, 2));
    EXPECT_EQ(threads_of(64, 63), std::min(threads, 2));
    EXPECT_EQ(threads_of(64, 64), 1);
    EXPECT_EQ(threads_of(1, 0), 1);
    EXPECT_EQ(threads_of(0, 1), 0);
  }
}

TEST(ParallelFor, TakesEveryItemOnceOnThreadsBelowItsWidth) {
  for (const int threads : {1, 2, 3, 4}) {
    const Threads set(threads);
    for (const int64_t count : {1, 2, 5, 64, 1000}) {
      for (const int64_t grain : {0, 1, 7, 64}) {
        std::vector<std::atomic<int>> taken(static_cast<size_t>(count));
        const int64_t width = parallel_width(count, grain);
        EXPECT_LE(width, threads);
        parallel_for(3, 3 + count, grain, [&](int64_t begin, int64_t end) {
          EXPECT_LT(at::get_thread_num(), width);
          for (int64_t i = begin; i < end; ++i) ++taken[static_cast<size_t>(i - 3)];
        });
        for (const std::atomic<int>& times : taken) EXPECT_EQ(times, 1);
      }
    }
  }
}

TEST(ParallelFor, ThrowsWhatTheFirstPieceThrewAfterAllOfThem) {
  const Threads set(4);
  std::atomic<int> done = 0;
  const auto run = [&] {
    parallel_for(0, 4, 1, [&](int64_t begin, int64_t) {
      ++done;
      if (begin > 0) throw std::runtime_error(std::to_string(begin));
    });
  };
  for (int i = 0; i < 20; ++i) {
    try {
      run();
      ADD_FAILURE() << "expected an exception";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "1");
    }
  }
  EXPECT_EQ(done, 80);
  EXPECT_EQ(threads_of(64, 1), 4) << "loops go on after an exception";
}

TEST(ParallelFor, StaysOnItsThreadInsideOfAnotherLoop) {
  const Threads set(2);
  const ThreadCount taking_part;
  parallel_for(0, 2, 1, [](int64_t, int64_t) {
    const std::thread::id outer = std::this_thread::get_id();
    EXPECT_EQ(parallel_width(64, 1), 1);
    parallel_for(0, 64, 1, [&](int64_t begin, int64_t end) {
      EXPECT_EQ(std::this_thread::get_id(), outer);
      EXPECT_EQ(at::get_thread_num(), 0);
      EXPECT_EQ(end - begin, 64);
    });
  });
  EXPECT_EQ(taking_part.threads(), 2);
}

TEST(ParallelFor, StaysOnTheWorkersOfMetaTraining) {
  const Threads set(4);
  const ThreadCount taking_part;
  std::atomic<int> wrong = 0;
  meta::run_parallel(6, 3, [&](int64_t) {
    const std::thread::id worker = std::this_thread::get_id();
    parallel_for(0, 64, 1,
                 [&](int64_t, int64_t) { wrong += std::this_thread::get_id() != worker; });
  });
  EXPECT_EQ(wrong, 0);
  EXPECT_LE(taking_part.threads(), 3);
  EXPECT_EQ(threads_of(64, 1), 4) << "and not on others' loops afterwards";
}

TEST(ParallelGrain, GivesEachThreadItsWorth) {
  EXPECT_EQ(parallel_grain(10, 1000, 100), 1);
  EXPECT_EQ(parallel_grain(10, 1000, 500), 5);
  EXPECT_EQ(parallel_grain(10, 10, 100), 100) << "one thread for little";
  EXPECT_EQ(parallel_grain(0, 0, 100), 1);
}

}  // namespace
}  // namespace mnemosyne::ops
