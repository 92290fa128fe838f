#include "mnemosyne/meta/parallel.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <limits>
#include <mutex>
#include <numeric>
#include <optional>
#include <thread>

namespace mnemosyne::meta {

namespace {

// Runs `loop` in all workers, each with ATen single threaded, and waits for them.
void run_workers(size_t num_workers, const std::function<void()>& loop) {
  // at::set_num_threads also sets the default of threads to come: the caller gets its own back.
  const int threads_before = at::get_num_threads();
  std::vector<std::thread> threads;
  for (size_t i = 0; i < num_workers; ++i) {
    threads.emplace_back([&loop] {
      at::set_num_threads(1);
      loop();
    });
  }
  for (std::thread& thread : threads) thread.join();
  at::set_num_threads(threads_before);
}

void rethrow_first(const std::vector<std::exception_ptr>& errors) {
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

size_t workers_for(size_t count, int64_t num_workers) {
  return std::min<size_t>(static_cast<size_t>(std::max<int64_t>(num_workers, 1)), count);
}

// Which item a free worker goes on with.
class SliceQueue {
 public:
  explicit SliceQueue(size_t count) : items_(count) {}

  // The item that would take longest alone among those that nobody is at, now taken; none when all
  // are done or taken. Items that nobody has begun come first, in their order.
  std::optional<size_t> take() {
    const std::lock_guard lock(mutex_);
    std::optional<size_t> best;
    double most = -1.0;
    for (size_t i = 0; i < items_.size(); ++i) {
      Item& item = items_[i];
      if (item.taken || item.done) continue;
      const double left = item.steps == 0 ? std::numeric_limits<double>::infinity()
                                          : item.left * item.seconds / item.steps;
      if (left <= most) continue;
      most = left;
      best = i;
    }
    if (best) items_[*best].taken = true;
    return best;
  }

  void give_back(size_t index, int64_t steps, double seconds, int64_t left) {
    const std::lock_guard lock(mutex_);
    Item& item = items_[index];
    item.steps += static_cast<double>(steps);
    item.seconds += seconds;
    item.left = static_cast<double>(left);
    item.done = left <= 0;
    item.taken = false;
  }

 private:
  struct Item {
    double steps = 0, seconds = 0, left = 0;
    bool taken = false, done = false;
  };

  std::mutex mutex_;
  std::vector<Item> items_;
};

}  // namespace

void run_parallel(const std::vector<int64_t>& order, int64_t num_workers,
                  const std::function<void(int64_t)>& work) {
  const size_t count = order.size();
  std::vector<std::exception_ptr> errors(count);
  std::atomic<size_t> next{0};
  run_workers(workers_for(count, num_workers), [&] {
    for (size_t i = next++; i < count; i = next++) {
      try {
        work(order[i]);
      } catch (...) {
        errors[i] = std::current_exception();
      }
    }
  });
  rethrow_first(errors);
}

void run_parallel(int64_t count, int64_t num_workers, const std::function<void(int64_t)>& work) {
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  run_parallel(order, num_workers, work);
}

void run_in_slices(int64_t count, int64_t num_workers, const SlicedWork& work) {
  constexpr int64_t kSlice = 8;  // steps
  std::vector<std::exception_ptr> errors(static_cast<size_t>(count));
  SliceQueue queue(errors.size());
  run_workers(workers_for(errors.size(), num_workers), [&] {
    while (const std::optional<size_t> taken = queue.take()) {
      const auto item = static_cast<int64_t>(*taken);
      const auto start = std::chrono::steady_clock::now();
      int64_t steps = 0, left = 0;
      try {
        steps = std::min(kSlice, work.left(item));
        work.advance(item, steps);
        left = work.left(item);
      } catch (...) {
        errors[*taken] = std::current_exception();
        left = 0;
      }
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      queue.give_back(*taken, steps, seconds.count(), left);
    }
  });
  rethrow_first(errors);
}

}  // namespace mnemosyne::meta
