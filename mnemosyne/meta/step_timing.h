#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "mnemosyne/meta/contender.h"

namespace mnemosyne::meta {

/// What a step of an optimizer costs on a list of parameters.
struct StepCost {
  double milliseconds = 0;      ///< Median.
  double over_fused_adamw = 0;  ///< Median of the quotients of one repetition each.
  double bytes_per_param = 0;   ///< State, without the step counters.
  int64_t operations = 0;  ///< Of a step and the cleaning of its gradients (ops::OperationCount).
  int64_t host_reads = 0;  ///< Of them those for which the host would wait for a device.
};

/// Times the steps of several optimizers and of torch's fused AdamW, in turn within every
/// repetition, on copies of `params` with fixed random gradients and the threads that are set.
///
/// On a machine that others use, too, only the quotients mean something: both sides of one were
/// timed within the same moment.
std::vector<StepCost> time_steps(const std::vector<Contender>& contenders, at::TensorList params,
                                 int64_t repetitions);

/// Bytes of an optimizer's state per parameter, without the step counters.
double state_bytes_per_param(const optim::UpdateRule& rule, at::TensorList params);

/// Random parameters with the shapes of ViT-Ti/16 with ten classes: 152 tensors, 5,526,346 numbers.
std::vector<at::Tensor> vit_tiny_params();

}  // namespace mnemosyne::meta
