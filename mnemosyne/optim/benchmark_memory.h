#pragma once

#include <cstdint>
#include <vector>

#include "mnemosyne/optim/coordinate.h"

namespace mnemosyne::optim {

struct MemoryBenchmarkOptions {
  std::vector<int64_t> sizes = {2048, 32, 320,
                                10};  ///< Coordinates of each tensor: an MLP 64-32-10.
  int64_t window = 20;                ///< Steps between two backward passes.
  double seconds = 1.0;               ///< Least time of each measurement.
  CoordinateOptions rule = {};        ///< One layer, float32.
};

/// Coordinate-steps per second.
struct MemoryBenchmark {
  double reference = 0.0;  ///< Forward and backward over a window in plain tensor operations.
  double fused = 0.0;      ///< The same through the fused kernels.
  double in_place = 0.0;   ///< The fused step of training, without gradients.

  double speedup() const { return fused / reference; }
};

/// Measures the memory step with the active instruction set and torch's number of threads: the
/// caller sets both. Windows of the two implementations alternate, so that a machine that slows
/// down slows both.
///
///     at::set_num_threads(1);
///     const auto result = optim::benchmark_memory_step({.sizes = {100000}});
MemoryBenchmark benchmark_memory_step(const MemoryBenchmarkOptions& options);

}  // namespace mnemosyne::optim
