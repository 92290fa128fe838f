#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <vector>

#include "mnemosyne/kernels/orthogonalize.h"
#include "mnemosyne/ops/orthogonalize/orthogonalize.h"
#include "mnemosyne/ops/orthogonalize/poles.h"
#include "mnemosyne/ops/parallel.h"

namespace mnemosyne::ops {
namespace {

/// Multiplications and additions of one matrix: the Gram matrix, the inverses, the last product.
double cost(const kernels::OrthogonalizeMatrix& matrix) {
  const double small = static_cast<double>(std::min(matrix.rows, matrix.columns));
  const double large = static_cast<double>(std::max(matrix.rows, matrix.columns));
  return 3 * small * small * (small + large);
}

/// Below it (some 20 microseconds) waking threads costs more than it saves.
constexpr double kSerialCost = 1e6;

/// The calling thread's workspace, of at least `size` floats, aligned for every kernel; it only
/// grows.
float* workspace(int64_t size) {
  struct Free {
    void operator()(float* data) const { std::free(data); }
  };
  constexpr int64_t kAlignment = 64;
  thread_local std::unique_ptr<float, Free> data;
  thread_local int64_t capacity = 0;
  if (size > capacity) {
    const int64_t bytes =
        (size * int64_t{sizeof(float)} + kAlignment - 1) / kAlignment * kAlignment;
    data.reset();
    capacity = 0;
    data.reset(static_cast<float*>(std::aligned_alloc(kAlignment, bytes)));
    TORCH_CHECK(data != nullptr, "[orthogonalize_] expected ", bytes, " bytes of memory, got none");
    capacity = size;
  }
  return data.get();
}

}  // namespace

void orthogonalize_(const MatrixRef* matrices, int64_t count) {
  std::vector<kernels::OrthogonalizeMatrix> list;
  double total_cost = 0;
  for (int64_t i = 0; i < count; ++i) {
    list.push_back({matrices[i].data, matrices[i].rows, matrices[i].columns});
    total_cost += cost(list.back());
  }
  const kernels::OrthogonalizeParams problem{.matrices = list.data(),
                                             .count = count,
                                             .weights = kWeights.data(),
                                             .poles = kPoles.data(),
                                             .num_terms = static_cast<int>(kWeights.size())};
  const int64_t scratch = kernels::orthogonalize_scratch(problem);
  const int64_t threads = parallel_width(count, 1);
  if (threads == 1 || total_cost < kSerialCost) {
    kernels::orthogonalize({problem, 0, count, workspace(scratch)});
    return;
  }
  // The largest first, each to the thread that is free: no thread waits long for the others at the
  // end.
  std::stable_sort(list.begin(), list.end(),
                   [](const auto& a, const auto& b) { return cost(a) > cost(b); });
  std::atomic<int64_t> next = 0;
  parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t i = next++; i < count; i = next++) {
      kernels::orthogonalize({problem, i, i + 1, workspace(scratch)});
    }
  });
}

}  // namespace mnemosyne::ops
