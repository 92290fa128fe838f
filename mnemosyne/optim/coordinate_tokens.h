#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "mnemosyne/ops/tensor_step/tensor_step.h"
#include "mnemosyne/optim/update_rule.h"

namespace mnemosyne::optim {

// T = tensors, N = coordinates of all of them, in row-major order, F = features of a coordinate,
// G = features of a tensor.

/// Where the coordinates of a list of parameters are.
struct CoordinatePlaces {
  std::vector<int64_t> counts{};  ///< Coordinates of each tensor, [T]; may be zero.
  at::Tensor owners{};            ///< int64 [N], the tensor of each coordinate.

  CoordinatePlaces() = default;
  /// Reads sizes of the parameters, not strides.
  CoordinatePlaces(at::TensorList params, at::Device device);

  /// Numbers [T, ...] for the coordinates of each tensor, [N, ...].
  at::Tensor spread(const at::Tensor& values) const;
};

/// The indices of each coordinate along the first two axes and along the rest, float32 [N,3].
at::Tensor coordinate_positions(at::TensorList params);

/// What is known of coordinates in a step: [N] each, of one dtype and device.
struct CoordinateFacts {
  at::Tensor grad, param;
  at::Tensor momentum, second_moment;  ///< After the step, with their bias corrections.
  at::Tensor direction;                ///< The base rule's, in units of its usual root mean square.
  at::Tensor grad_rms, param_rms;      ///< Of the coordinate's tensor.
  at::Tensor mean_second_moment;       ///< Of the coordinate's tensor.
};

/// What a coordinate looks like on any scale of loss and parameter: [N,F] in [-1, 1], zero for what
/// is not finite. With soft(x) = x / (1 + |x|), a = m / (sqrt v + eps), n = g / (sqrt v + eps), U
/// the direction and RMS over the tensor,
///
///     soft(g / RMS g), max(log |g / RMS g| / 10, -1), clip(e^10 g / RMS g, -1, 1)
///     soft n, soft a, soft U, soft(U n), soft(a n), v / (v + mean v) - 1/2, soft(p / RMS p)
///
/// Logarithm and sign are those of Andrychowicz et al. 2016, arXiv 1606.04474.
at::Tensor coordinate_tokens(const CoordinateFacts& facts, double eps);

/// F names, in the order of the columns.
const std::vector<std::string>& coordinate_token_names();

/// What is known of tensors as wholes, [T,G] on the device and in the dtype of the sums: that of
/// `coordinate_tensor_features` for steps `t` [T], and from sums over a tensor's coordinates the
/// cosine of gradient and momentum, tanh of log |m| / |g| and of a third of log RMS(p), and the
/// fraction of zeros in the gradient. Zero for what is not finite.
at::Tensor tensor_tokens(at::TensorList params, const std::vector<int64_t>& t,
                         const StepOptions& options, const ops::StepSums& sums);

/// G.
int64_t num_tensor_tokens();

}  // namespace mnemosyne::optim
