#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "mnemosyne/optim/deferred_count.h"
#include "mnemosyne/optim/update_rule.h"

namespace mnemosyne::optim {

/// params -= update where all of the update is finite. Where it is not, `fallback()` is taken
/// instead, zero where that is not finite either, and counted. Only on the CPU is anything read.
void subtract_finite_(const at::Tensor& param, const at::Tensor& update,
                      const std::function<at::Tensor()>& fallback, DeferredCount* count);

/// Entries of a state that are not finite start anew, as in `fresh`.
void repair_state(ParamState& state, const ParamState& fresh);

}  // namespace mnemosyne::optim
