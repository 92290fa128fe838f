#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace mnemosyne::ops {

/// Number of per-coordinate read-outs that correct a direction (optim/mnemosyne_rule.h).
inline constexpr int kNumReadouts = 5;

/// Root mean square of an orthogonalised direction after scaling, that of a typical Adam step.
inline constexpr double kDirectionRms = 0.2;

/// A read-out changes a coordinate's step by at most this fraction.
inline constexpr double kReadoutBound = 0.75;

/// What happens to one tensor in one step whatever was learned: numbers of the host.
struct StepBase {
  double momentum_decay = 0.95;      ///< b1 of m <- b1 m + (1 - b1) g
  double second_decay = 0.99;        ///< b2 of v <- b2 v + (1 - b2) g^2
  double momentum_correction = 1.0;  ///< 1 / (1 - b1^t)
  double second_correction = 1.0;    ///< 1 / (1 - b2^t)
  double eps = 1e-8;
  double step = 0.0;           ///< step size
  double decay = 0.0;          ///< p shrinks by this fraction
  double blend = 0.05;         ///< weight of g in the orthogonalised m + blend (g - m)
  uint32_t rounding_seed = 0;  ///< of a second moment in bfloat16 (`round_at_random`)
};

/// A list of T tensors in one step, all on one device.
///
/// State and arithmetic are float64 for float64 parameters and float32 for others; parameters and
/// gradients may have any floating-point dtype and strides. A tensor is cut into chunks of
/// `chunk_size` coordinates in logical (row-major) order, the last of them shorter; an empty tensor
/// has one chunk. C is the number of chunks of the list, tensor after tensor.
struct TensorStep {
  std::vector<at::Tensor> params, grads, momenta;
  /// Of a matrix it may be undefined or empty where no correction asks for it; likewise the list.
  /// All of them may be bfloat16, which is then rounded at random (`round_at_random`): to nearest a
  /// share of (1 - b2) of a number vanishes in it, and v stops far below the mean of g^2.
  std::vector<at::Tensor> second_moments;
  /// What the step before took off each parameter, bfloat16 (round to nearest even): u of
  /// `directions_reference` without any decay, zero where a coordinate stayed. No list: nobody
  /// asks.
  std::vector<at::Tensor> previous_updates;
  std::vector<int64_t> rows;  ///< of the matrix [rows, size / rows] that it is; 0 for a vector
  std::vector<StepBase> base;
  int64_t chunk_size = 0;  ///< 0: every tensor is one chunk
  at::Tensor scale;        ///< 0-d, or undefined: multiplies every `step` and `decay`
  at::Tensor decay_scale;  ///< 0-d, or undefined: multiplies every `decay`

  size_t size() const { return params.size(); }
  /// Undefined where there is none.
  at::Tensor second_moment(size_t i) const;
};

/// The number of chunks of a tensor of so many coordinates.
int64_t chunk_count(int64_t numel, int64_t chunk_size);

/// The number of chunks of each tensor, [T].
std::vector<int64_t> chunk_counts(const TensorStep& step);

/// Sums over the coordinates of every chunk, each [C] of float64 (float32 on devices without), on
/// the device of the step; or all undefined. Those after `zeros` are of lists with previous updates
/// u, undefined for others.
struct StepSums {
  at::Tensor grad_dot_momentum;    ///< <g, m> with m before the step
  at::Tensor grad_squared;         ///< |g|^2
  at::Tensor old_squared;          ///< |m|^2 before the step
  at::Tensor new_squared;          ///< |m|^2 after it
  at::Tensor param_squared;        ///< |p|^2
  at::Tensor second_moment;        ///< sum of v after it, before any rounding to bfloat16
  at::Tensor zeros;                ///< number of coordinates with g = 0
  at::Tensor grad_dot_update;      ///< <g, u>
  at::Tensor momentum_dot_update;  ///< <m, u> with m before the step
  at::Tensor update_squared;       ///< |u|^2
  at::Tensor grad_dot_param;       ///< <g, p>
};

/// Its members, for what treats all of them alike.
inline constexpr at::Tensor StepSums::* kStepSums[] = {&StepSums::grad_dot_momentum,
                                                       &StepSums::grad_squared,
                                                       &StepSums::old_squared,
                                                       &StepSums::new_squared,
                                                       &StepSums::param_squared,
                                                       &StepSums::second_moment,
                                                       &StepSums::zeros,
                                                       &StepSums::grad_dot_update,
                                                       &StepSums::momentum_dot_update,
                                                       &StepSums::update_squared,
                                                       &StepSums::grad_dot_param};

/// How many of them every list has; the others need previous updates.
inline constexpr int64_t kNumMomentSums = 7;

/// What is learned, a number for each chunk, in any floating-point dtype; an undefined member
/// changes nothing.
struct StepCorrection {
  at::Tensor step;      ///< [C], factor of the step size
  at::Tensor blend;     ///< [C], factor of `StepBase::blend`
  at::Tensor mixture;   ///< [C], weight of kDirectionRms a beside a matrix' own direction
  at::Tensor decay;     ///< [C], weight decay in units of the step size, beside StepBase::decay
  at::Tensor readouts;  ///< [C, kNumReadouts], c below
};

/// Its members.
inline constexpr at::Tensor StepCorrection::* kStepCorrections[] = {
    &StepCorrection::step, &StepCorrection::blend, &StepCorrection::mixture, &StepCorrection::decay,
    &StepCorrection::readouts};

/// A correction of which every member is what `change` makes of it, the undefined ones, too.
template <typename Change>
StepCorrection changed(const StepCorrection& correction, const Change& change) {
  StepCorrection result;
  for (const auto member : kStepCorrections) result.*member = change(correction.*member);
  return result;
}

/// Random bits of a coordinate: of its logical index i (modulo 2^32), and of a seed.
///
///     x = 0x9E3779B9 i ^ seed     x ^= x >> 16     x *= 0x7FEB352D     x ^= x >> 15
///     x *= 0x846CA68B             x ^= x >> 16     the lower 16 bits
///
/// (the mixing steps are those of lowbias32, C. Wellons, 2018). `index` and `seed` are int64.
at::Tensor rounding_bits(const at::Tensor& index, const at::Tensor& seed);

/// float32 -> float32 that bfloat16 has: up or down so that the mean is x, by 16 random bits.
at::Tensor round_at_random(const at::Tensor& x, const at::Tensor& bits);

/// Advances the moments: the new ones take their places in the struct, nothing is written to. With
/// `with_sums` every tensor needs a second moment.
StepSums advance_moments_reference(TensorStep& step, bool with_sums);

/// The directions that the moments after `advance_moments` give, u [T] in the shapes of the
/// parameters and the dtype of their state: p <- p - (u + decay p) is the step. Plain ATen, any
/// device, differentiable in the correction, `blend` through the orthogonalisation; nothing is read
/// back. Where the list has previous updates, new ones take their places in the struct, without a
/// graph. With s, c, w, d the step size, read-outs, mixture and decay of the chunk,
///
///     a = m^ / (sqrt v^ + eps)     m^, v^ with their bias corrections
///     D = kDirectionRms sqrt(max(rows, columns)) orthogonalize(m + blend (g - m))  for a matrix
///     D = a                                                                      for a vector
///     h = c0 soft(U a) + c1 soft(U g / (sqrt v^ + eps)) + c2 soft |a| + c3 soft |U| +
///         c4 (v^ / (v^ + mean v^) - 1/2)     soft(x) = x / (1 + |x|), mean over the tensor
///     u = s ((D + w (kDirectionRms a - D)) (1 + kReadoutBound soft h) + d p)
///
/// U = D / kDirectionRms for a matrix, w = 0 for a vector.
std::vector<at::Tensor> directions_reference(TensorStep& step, const StepSums& sums,
                                             const StepCorrection* correction);

/// `directions_reference` in few operations over the whole list, with its first derivatives by the
/// correction in closed form: sums over the coordinates of a chunk, so that no graph goes through
/// coordinates. Needs the sums, and a second moment of every tensor. float32 matrices on the CPU
/// are orthogonalised by the kernel of `apply_directions_`. Higher derivatives are refused.
std::vector<at::Tensor> directions(TensorStep& step, const StepSums& sums,
                                   const StepCorrection& correction);

/// The step in plain ATen, tensor by tensor: the specification of `apply_directions_`.
at::Tensor apply_directions_reference_(TensorStep& step, const StepSums& sums,
                                       const StepCorrection* correction);

/// `advance_moments_reference` in place: moments keep their storage. Gradients of another dtype or
/// strides are replaced in the struct by contiguous ones. On the CPU a fused kernel where no
/// parameter is float64, elsewhere few operations over the whole list, which read nothing back
/// (device.h); no result depends on the number of threads.
StepSums advance_moments_(TensorStep& step, bool with_sums);

/// Moves the parameters along `directions_reference`, in the way of `advance_moments_`, whose sums
/// it takes where there are some (read-outs need them), and writes previous updates where the list
/// has some. Nothing that is not finite is written:
///
/// A tensor takes the plain direction where the sums, its correction or its direction are not
/// finite: a, times kDirectionRms for a matrix, with moments that are not finite set to zero; for a
/// matrix without a second moment m at the root mean square kDirectionRms. It then moves with the
/// corrected step size where that is finite. A coordinate that has no finite step even so stays.
/// Returns the number of tensors of which either happened, a 0-d int64 on the device of the step.
at::Tensor apply_directions_(TensorStep& step, const StepSums& sums,
                             const StepCorrection* correction);

}  // namespace mnemosyne::ops
