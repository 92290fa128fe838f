#include "mnemosyne/ops/parallel.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>
#include <torch/csrc/stable/c/shim.h>

#include <algorithm>
#include <atomic>
#include <exception>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MN_THREAD_SANITIZER
#endif
#elif defined(__SANITIZE_THREAD__)
#define MN_THREAD_SANITIZER
#endif
#ifdef MN_THREAD_SANITIZER
#include <sanitizer/tsan_interface.h>
#endif

namespace mnemosyne::ops {
namespace {

/// An order between threads that the thread sanitizer has to be told, as torch's OpenMP runtime is
/// not compiled for it: what was done before `leave` comes before what is done after `pass`.
class Gate {
 public:
  void leave() {
#ifdef MN_THREAD_SANITIZER
    __tsan_release(this);
#endif
  }

  void pass() {
#ifdef MN_THREAD_SANITIZER
    __tsan_acquire(this);
#endif
  }
};

std::atomic<ThreadCount*> counting = nullptr;

/// One loop: what its threads share.
class Loop {
 public:
  explicit Loop(c10::function_ref<void(int64_t, int64_t)> body) : body_(body) { start_.leave(); }

  /// Never throws: its caller is a C function.
  void run(int64_t begin, int64_t end) noexcept {
    start_.pass();
    try {
      if (ThreadCount* count = counting.load(std::memory_order_acquire)) count->add_this_thread();
      body_(begin, end);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (error_ == nullptr || begin < error_begin_) {
        error_ = std::current_exception();
        error_begin_ = begin;
      }
    }
    end_.leave();
  }

  void finish() {
    end_.pass();
    if (error_ != nullptr) std::rethrow_exception(error_);
  }

 private:
  c10::function_ref<void(int64_t, int64_t)> body_;
  // Two: by one alone, a piece that ends before another begins would come before it, and the
  // sanitizer would not see that they write to the same place.
  Gate start_, end_;
  std::mutex mutex_;
  std::exception_ptr error_;
  int64_t error_begin_ = 0;
};

}  // namespace

void parallel_for(int64_t begin, int64_t end, int64_t grain,
                  c10::function_ref<void(int64_t, int64_t)> body) {
  Loop loop(body);
  const auto run = [](int64_t from, int64_t to, void* context) {
    static_cast<Loop*>(context)->run(from, to);
  };
  const AOTITorchError status = torch_parallel_for(begin, end, grain, run, &loop);
  loop.finish();
  TORCH_CHECK(status == AOTI_TORCH_SUCCESS, "[parallel_for] expected torch's threads to run, got ",
              "error ", status);
}

int64_t parallel_width(int64_t count, int64_t grain) {
  if (count <= std::max<int64_t>(grain, 1) || at::in_parallel_region()) return 1;
  return std::min<int64_t>(at::get_num_threads(), at::divup(count, std::max<int64_t>(grain, 1)));
}

int64_t parallel_grain(int64_t count, int64_t total, int64_t worth) {
  return std::max<int64_t>(1, count * worth / std::max<int64_t>(total, 1));
}

ThreadCount::ThreadCount() { counting.store(this, std::memory_order_release); }

ThreadCount::~ThreadCount() { counting.store(nullptr, std::memory_order_release); }

int64_t ThreadCount::threads() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int64_t>(threads_.size());
}

void ThreadCount::add_this_thread() {
  const std::lock_guard lock(mutex_);
  threads_.insert(std::this_thread::get_id());
}

}  // namespace mnemosyne::ops
