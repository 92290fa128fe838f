#pragma once

#include <c10/util/FunctionRef.h>

#include <cstdint>
#include <mutex>
#include <set>
#include <thread>

namespace mnemosyne::ops {

/// Calls `body(begin, end)` for pieces of [begin, end) on the threads of torch
/// (at::set_num_threads), each piece of at least `grain` items; at::get_thread_num() inside is
/// below `parallel_width`. One thread, the caller's, takes everything where there are no more than
/// `grain` items, and inside of another loop. An exception of the first piece that threw one is
/// thrown again after all of them.
///
/// It is at::parallel_for as it was compiled into torch. The template in ATen/Parallel.h is a plain
/// loop wherever the compiler runs without OpenMP, and elsewhere brings the compiler's runtime
/// beside that of torch; this one runs in torch's own threads, whatever compiled us.
///
///     parallel_for(0, chunks.size(), 1, [&](int64_t begin, int64_t end) { ... });
void parallel_for(int64_t begin, int64_t end, int64_t grain,
                  c10::function_ref<void(int64_t, int64_t)> body);

/// The threads that a loop over `count` items takes at most.
int64_t parallel_width(int64_t count, int64_t grain);

/// The grain at which each thread gets about `worth` of the `total` work of `count` items, or more.
int64_t parallel_grain(int64_t count, int64_t total, int64_t worth);

/// The threads that took part in `parallel_for` since it was made, anywhere in the process. For
/// tests and benchmarks: at most one at a time.
class ThreadCount {
 public:
  ThreadCount();
  ~ThreadCount();
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

  int64_t threads() const;
  void add_this_thread();

 private:
  mutable std::mutex mutex_;
  std::set<std::thread::id> threads_;
};

}  // namespace mnemosyne::ops
