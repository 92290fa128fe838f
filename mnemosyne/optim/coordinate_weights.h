#pragma once

#include <ATen/core/Tensor.h>

#include "mnemosyne/core/named_tensors.h"
#include "mnemosyne/optim/coordinate.h"

namespace mnemosyne::optim {

/// Y, the number of features of a tensor as a whole.
int64_t coordinate_tensor_features();

/// Those features at step t = 1, 2, ...: [Y], float64.
at::Tensor coordinate_tensor_features(const at::Tensor& param, int64_t t,
                                      const StepOptions& options);

/// Seeded untrained weights, float32: the decoder's last layer zero, discounts from .9 to .999.
///
///     layers.<l>.decay_logit [H], and but for the constant map .key and .query [H, D, F] and
///     .temperature [H], the logit of the radius; after the first layer .value [V, F];
///     decoder.hidden_weight [U, Z], .hidden_bias [U], .tensor_weight [U, Y], .output_weight [2,
///     U], .output_bias [2]; step.log_rate [], step.tensor_weight [Y]
NamedTensors initial_coordinate_weights(const CoordinateOptions& options);

/// omega [M, D] from `options.omega`, or drawn with `options.seed`; undefined for the constant map.
at::Tensor coordinate_omega(const CoordinateOptions& options);

/// The inverse: numbers that read back to the same bits.
std::string omega_text(const at::Tensor& omega);

/// Throws InputError that names the first option out of range.
void validate(const CoordinateOptions& options);

}  // namespace mnemosyne::optim
