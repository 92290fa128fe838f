#pragma once

#include <vector>

#include "mnemosyne/ops/tensor_step/tensor_step.h"
#include "mnemosyne/optim/update_rule.h"

namespace mnemosyne::optim {

/// A parameter list ready for the fused kernels: contiguous float32 stand-ins where a parameter or
/// gradient is anything else, written back by `finish`.
class FusedStep {
 public:
  /// Whether all tensors can go through the fused kernels (on the CPU, not float64).
  static bool supports(at::TensorList grads, at::TensorList params);

  /// `state[i]` holds step, momentum and second moment at 0, 1 and 2; step counters are advanced.
  /// `rows` are those of the matrix that a parameter is treated as, 0 for a vector.
  FusedStep(at::TensorList grads, State& state, at::TensorList params,
            const std::vector<int64_t>& rows);

  const std::vector<ops::TensorStepItem>& items() const { return items_; }

  /// Copies stand-ins back into the parameters.
  void finish();

 private:
  at::TensorList params_;
  std::vector<ops::TensorStepItem> items_;
};

}  // namespace mnemosyne::optim
