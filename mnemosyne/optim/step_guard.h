#pragma once

#include <ATen/core/Tensor.h>

namespace mnemosyne::optim {

/// How far what is decided of T tensors is trusted, [T] from 1 to 0, by their features
/// (step_features.h, `aligned` as there) [T, F]: what is decided is multiplied by it, so that 0
/// leaves the base rule.
///
/// Weights have learned from gradients that behave. Where the norms of all gradients of a list grow
/// by more than e^1.5 between their average over about 50 steps and that over about 5, they do not:
/// trust falls, to 0 at e^2.5. Both are of `mean_norm_trend`, the hyperbolic tangent of that
/// logarithm, averaged over the tensors by their sizes, so that one layer that wakes up (a
/// residual branch that starts at zero, one that was frozen) is not a network that runs away.
/// The alignment with the step before says nothing of it: on networks that train well it is
/// anywhere between a little positive and far below zero. Differentiable; reads nothing back.
at::Tensor step_trust(const at::Tensor& features, bool aligned = false);

}  // namespace mnemosyne::optim
