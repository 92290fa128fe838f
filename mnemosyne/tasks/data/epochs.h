#pragma once

#include <cstdint>
#include <vector>

namespace mnemosyne::tasks {

/// Which examples a step sees: the epochs' permutations of 0 ... examples - 1 one behind the other,
/// cut into batches. Every example comes once per epoch, every batch is full, and the last one of
/// an epoch is filled up from the next.
///
/// A pure function of (seed, step); it only remembers the permutations that it needed last.
class Epochs {
 public:
  /// Both counts positive.
  Epochs(int64_t examples, int64_t batch, uint64_t seed)
      : examples_(examples), batch_(batch), seed_(seed) {}

  /// The `batch` examples of a step, 0, 1, ...
  std::vector<int64_t> at(int64_t step);

 private:
  const std::vector<int64_t>& order(int64_t epoch);

  int64_t examples_;
  int64_t batch_;
  uint64_t seed_;
  int64_t epoch_ = -1;
  std::vector<int64_t> order_;
};

}  // namespace mnemosyne::tasks
