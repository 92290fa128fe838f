#pragma once

#include <cstdint>

#include "mnemosyne/kernels/dispatch.h"

// A step of the optimizer over a list of tensors, float32: ops/tensor_step/tensor_step.h has the
// specification and its letters.

namespace mnemosyne::kernels {

constexpr int kNumReadouts = 5;

/// One tensor of the list.
struct StepTensor {
  float* param;
  const float* grad;
  float* momentum;
  float* second_moment;             ///< or null
  uint16_t* compact_second_moment;  ///< or null: bfloat16 in its place
  uint32_t rounding_seed;           ///< of that
  float* direction;                 ///< of a matrix, else null: m + blend (g - m), then D / `scale`
  uint16_t* update;      ///< or null: what the step before took off, then this one; bfloat16
  float momentum_decay;  ///< b1
  float second_decay;    ///< b2
  float momentum_correction;
  float second_correction;
  float eps;
  float scale;               ///< of the direction, or of a where there is none
  float mean_second_moment;  ///< of v^
  bool corrected;            ///< whether the read-outs are used
};

/// What is decided of one chunk.
struct ChunkNumbers {
  float step;
  float decay;  ///< p shrinks by this fraction
  float blend;
  float mixture;
  float readouts[kNumReadouts];
};

/// Coordinates of one chunk, what a thread treats at once.
struct StepPiece {
  int64_t tensor;
  int64_t chunk;
  int64_t begin;
  int64_t size;
};

/// Sums over a piece, before the moments are updated where "old" is said.
struct PieceSums {
  double grad_dot_momentum;  ///< <g, old m>
  double grad_squared;       ///< |g|^2
  double old_squared;        ///< |old m|^2
  double new_squared;        ///< |m|^2
  double param_squared;      ///< |p|^2
  double second_moment;      ///< sum of v
  double zeros;              ///< number of coordinates with g = 0
};

/// Sums over a piece with the update u of the step before, before the moments are updated.
struct PieceAlignment {
  double grad_dot_update;      ///< <g, u>
  double momentum_dot_update;  ///< <m, u>
  double update_squared;       ///< |u|^2
  double grad_dot_param;       ///< <g, p>
};

struct TensorStepParams {
  const StepTensor* tensors;
  const ChunkNumbers* chunks;
  const StepPiece* pieces;
  float rms;        ///< of a direction
  float bound;      ///< of the read-outs' effect: a step changes by 1 - bound to 1 + bound
  PieceSums* sums;  ///< [pieces] or null: then `param` is not read
  PieceAlignment* alignment;  ///< [pieces] or null: then `update` is not read
  int64_t* skipped;           ///< [pieces], zero
};

/// The pieces from begin to end; without scratch memory.
using TensorStepSlice = Slice<TensorStepParams>;

// update_moments: m <- b1 m + (1 - b1) g and v <- b2 v + (1 - b2) g^2, with the sums of the pieces;
// v in bfloat16 is rounded at random, as ops::round_at_random does.
//
// blend_directions: direction <- m + blend (g - m), what is orthogonalised then; of matrices.
//
// apply_directions: p <- p (1 - decay) - step f (d + mixture (rms a - d)) with d = scale direction,
// or scale a without `direction`; without `second_moment` a is absent and f = 1. A coordinate whose
// step is not finite stays, and `skipped` of its piece becomes above zero. What is taken off beside
// the decay goes to `update`, rounded to nearest even.

}  // namespace mnemosyne::kernels

MN_DECLARE_KERNEL(update_moments, TensorStepSlice)
MN_DECLARE_KERNEL(blend_directions, TensorStepSlice)
MN_DECLARE_KERNEL(apply_directions, TensorStepSlice)
