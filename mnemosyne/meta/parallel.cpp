#include "mnemosyne/meta/parallel.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <numeric>
#include <thread>

namespace mnemosyne::meta {

void run_parallel(const std::vector<int64_t>& order, int64_t num_workers,
                  const std::function<void(int64_t)>& work) {
  const size_t count = order.size();
  std::vector<std::exception_ptr> errors(count);
  std::atomic<size_t> next{0};
  const auto loop = [&] {
    at::set_num_threads(1);
    for (size_t i = next++; i < count; i = next++) {
      try {
        work(order[i]);
      } catch (...) {
        errors[i] = std::current_exception();
      }
    }
  };
  // at::set_num_threads also sets the default of threads to come: the caller gets its own back.
  const int threads_before = at::get_num_threads();
  std::vector<std::thread> threads;
  for (size_t i = 0; i < std::min<size_t>(std::max<int64_t>(num_workers, 1), count); ++i) {
    threads.emplace_back(loop);
  }
  for (std::thread& thread : threads) thread.join();
  at::set_num_threads(threads_before);
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

void run_parallel(int64_t count, int64_t num_workers, const std::function<void(int64_t)>& work) {
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  run_parallel(order, num_workers, work);
}

}  // namespace mnemosyne::meta
