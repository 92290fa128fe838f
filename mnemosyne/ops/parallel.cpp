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

// Torch's OpenMP runtime is not compiled for the thread sanitizer: that its threads start after
// what the caller did, and that the caller goes on after them, has to be said.
void before_others([[maybe_unused]] void* loop) {
#ifdef MN_THREAD_SANITIZER
  __tsan_release(loop);
#endif
}

void after_others([[maybe_unused]] void* loop) {
#ifdef MN_THREAD_SANITIZER
  __tsan_acquire(loop);
#endif
}

std::atomic<ThreadCount*> counting = nullptr;

/// One loop: what its threads share.
class Loop {
 public:
  explicit Loop(c10::function_ref<void(int64_t, int64_t)> body) : body_(body) {}

  /// Never throws: its caller is a C function.
  void run(int64_t begin, int64_t end) noexcept {
    after_others(this);
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
    before_others(this);
  }

  void finish() {
    after_others(this);
    if (error_ != nullptr) std::rethrow_exception(error_);
  }

 private:
  c10::function_ref<void(int64_t, int64_t)> body_;
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
  before_others(&loop);
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
