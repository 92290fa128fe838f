#include "mnemosyne/ops/large_tensor.h"

#include <ATen/ops/empty.h>

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <cstdint>

namespace mnemosyne::ops {
namespace {

constexpr size_t kLarge = size_t{8} << 20;

/// Advice only: what the system makes of it changes no result.
void ask_for_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] size_t bytes) {
#ifdef __linux__
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
  const auto end = (reinterpret_cast<uintptr_t>(data) + bytes) / page * page;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

}  // namespace

at::Tensor empty_large(at::IntArrayRef sizes) {
  at::Tensor result = at::empty(sizes, at::kFloat);
  if (result.nbytes() >= kLarge) ask_for_huge_pages(result.mutable_data_ptr(), result.nbytes());
  return result;
}

}  // namespace mnemosyne::ops
