#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <vector>

namespace mnemosyne::ops {

/// Number of per-coordinate read-outs that correct a direction (optim/mnemosyne_rule.h).
inline constexpr int kNumReadouts = 5;

/// Root mean square of an orthogonalised direction after scaling, that of a typical Adam step.
inline constexpr double kDirectionRms = 0.2;

/// A read-out changes a coordinate's step by at most this fraction.
inline constexpr double kReadoutBound = 0.75;

/// Scalars of one tensor in one step: everything a per-tensor controller may look at.
struct TensorSums {
  double grad_dot_momentum = 0.0;  ///< <g, m> with m before the step
  double grad_squared = 0.0;       ///< |g|^2
  double old_squared = 0.0;        ///< |m|^2 before the step
  double new_squared = 0.0;        ///< |m|^2 after it
  double param_squared = 0.0;      ///< |p|^2
  double second_moment = 0.0;      ///< sum of v after it
  double zeros = 0.0;              ///< number of coordinates with g = 0
};

/// How one tensor moves in one step.
struct TensorCoefficients {
  double momentum_decay = 0.95;      ///< b1 of m <- b1 m + (1 - b1) g
  double second_decay = 0.99;        ///< b2 of v <- b2 v + (1 - b2) g^2
  double momentum_correction = 1.0;  ///< 1 / (1 - b1^t)
  double second_correction = 1.0;    ///< 1 / (1 - b2^t)
  double eps = 1e-8;
  double step = 0.0;       ///< step size
  double decay = 0.0;      ///< p shrinks by this fraction
  double blend = 0.05;     ///< weight of g in the orthogonalised m + blend (g - m)
  double mixture = 0.0;    ///< weight of kDirectionRms a beside a matrix' own direction
  bool corrected = false;  ///< whether `readouts` are used
  bool plain = false;      ///< Adam's direction alone: the way out where the others are not finite
  std::array<double, kNumReadouts> readouts = {};
};

/// One fused step over a list of tensors: moments, per-tensor sums, orthogonalised directions,
/// update.
///
/// Tensors are contiguous float32 on the CPU and keep their storage. A tensor is a matrix when
/// `rows` > 0 (a view [rows, size / rows]); then its direction is the orthogonalised momentum,
/// otherwise the Adam-like one. `second_moment` may be undefined for a matrix that never asks for
/// it. Work is split over threads by tensors and chunks; no result depends on the number of
/// threads.
struct TensorStepItem {
  at::Tensor param;
  at::Tensor grad;
  at::Tensor momentum;
  at::Tensor second_moment;
  int64_t rows = 0;
};

/// Advances the moments in place. With `with_sums` every item needs a second moment, and the sums
/// of every item come back; otherwise the result is empty.
std::vector<TensorSums> update_moments_(const std::vector<TensorStepItem>& items,
                                        const std::vector<TensorCoefficients>& coefficients,
                                        bool with_sums);

/// Moves the parameters in place along the directions that the moments give. Returns the number of
/// tensors that could not be moved so: nothing that is not finite is written.
///
/// Where the direction of a matrix is not finite, moments that are not finite become zero and the
/// tensor is moved as with `plain`; a matrix without a second moment then takes its momentum, at
/// the root mean square kDirectionRms. A coordinate that has no finite step even so stays.
int64_t apply_directions_(const std::vector<TensorStepItem>& items,
                          const std::vector<TensorCoefficients>& coefficients,
                          const std::vector<TensorSums>& sums);

}  // namespace mnemosyne::ops
