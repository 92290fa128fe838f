#pragma once

#include <cstdint>
#include <vector>

#include "mnemosyne/core/named_tensors.h"

namespace mnemosyne::meta {

struct HorizonOptions {
  std::vector<int64_t> lengths = {100,  200,  500, 1000,
                                  1500, 2000, 3000};  ///< In inner steps, growing.
  int64_t steps_per_length = 100;  ///< Outer steps at each length, at most when `patience` is set.
  int64_t patience = 0;  ///< Also go on after this many validations without improvement; 0: off.
};

/// How long training runs may get as meta-training goes on.
class HorizonSchedule {
 public:
  explicit HorizonSchedule(HorizonOptions options);

  int64_t current() const { return options_.lengths[level_]; }

  /// To be told after every outer step.
  void outer_step_done();

  /// To be told after every validation: whether the weights got better.
  void validated(bool improved);

  NamedTensors checkpoint() const;
  void restore(const NamedTensors& tensors);

 private:
  void advance();

  HorizonOptions options_;
  size_t level_ = 0;
  int64_t steps_here_ = 0;
  int64_t stale_ = 0;
};

}  // namespace mnemosyne::meta
