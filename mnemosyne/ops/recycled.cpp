#include "mnemosyne/ops/recycled.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>

#include <map>
#include <mutex>
#include <utility>
#include <vector>

namespace mnemosyne::ops {
namespace {

constexpr size_t kMostKept = size_t{512} << 20;

/// Tensors without a user, by size. A tensor is what is kept, so that memory stays torch's own.
class Recycler {
 public:
  at::Tensor take(size_t bytes, const at::Tensor& like) {
    const std::lock_guard lock(mutex_);
    const auto found = free_.find(bytes);
    if (found == free_.end() || found->second.empty()) return at::empty_like(like);
    at::Tensor result = std::move(found->second.back());
    found->second.pop_back();
    kept_ -= bytes;
    return result;
  }

  void give(size_t bytes, at::Tensor tensor) {
    const std::lock_guard lock(mutex_);
    if (kept_ + bytes > kMostKept) return;
    kept_ += bytes;
    free_[bytes].push_back(std::move(tensor));
  }

 private:
  std::mutex mutex_;
  std::map<size_t, std::vector<at::Tensor>> free_;
  size_t kept_ = 0;
};

/// Never destroyed: tensors may outlive every static object.
Recycler& recycler() {
  static auto* const instance = new Recycler;
  return *instance;
}

}  // namespace

at::Tensor recycled_like(const at::Tensor& like) {
  const size_t bytes = like.nbytes();
  if (bytes == 0) return at::empty_like(like);
  at::Tensor memory = recycler().take(bytes, like);
  void* const data = memory.mutable_data_ptr();
  const auto release = [bytes, memory](void*) { recycler().give(bytes, memory); };
  return at::from_blob(data, like.sizes(), release, like.options().requires_grad(false));
}

}  // namespace mnemosyne::ops
