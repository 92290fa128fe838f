#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "mnemosyne/optim/update_rule.h"

namespace mnemosyne::optim {

/// How many updates so far were not finite and were replaced by something else, one for each tensor
/// and step. Flags on a device are summed there, and read when `total` is asked for.
class FallbackCount {
 public:
  explicit FallbackCount(int64_t total = 0) : host_(total) {}

  void add(int64_t count) { host_ += count; }

  /// `flag`, a 0-d bool on any device: whether the update of a tensor was replaced.
  void add(const at::Tensor& flag);

  int64_t total() const;

 private:
  int64_t host_ = 0;
  at::Tensor device_;  // 0-d int64, or undefined
};

/// params -= update where all of the update is finite. Where it is not, `fallback()` is taken
/// instead, zero where that is not finite either, and counted. Only on the CPU is anything read.
void subtract_finite_(const at::Tensor& param, const at::Tensor& update,
                      const std::function<at::Tensor()>& fallback, FallbackCount* count);

/// Entries of a state that are not finite start anew, as in `fresh`.
void repair_state(ParamState& state, const ParamState& fresh);

}  // namespace mnemosyne::optim
