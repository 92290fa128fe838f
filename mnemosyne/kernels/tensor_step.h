#pragma once

#include <cstdint>

#include "mnemosyne/kernels/dispatch.h"

namespace mnemosyne::kernels {

/// Sums over the coordinates of a chunk, before the moments are updated where "old" is said.
struct ChunkSums {
  double grad_dot_momentum;  ///< <g, old m>
  double grad_squared;       ///< |g|^2
  double old_squared;        ///< |old m|^2
  double new_squared;        ///< |m|^2
  double param_squared;      ///< |p|^2
  double second_moment;      ///< sum of v
  double zeros;              ///< number of coordinates with g = 0
};

/// m <- b1 m + (1 - b1) g and v <- b2 v + (1 - b2) g^2 over `size` coordinates, with the sums of
/// the chunk. `second_moment` may be null; `sums` may be null, and then `param` is not read.
struct MomentsParams {
  const float* grad;
  const float* param;
  float* momentum;
  float* second_moment;
  int64_t size;
  float momentum_decay;
  float second_decay;
  ChunkSums* sums;
};

/// direction <- m + blend (g - m), what is orthogonalised.
struct BlendParams {
  const float* grad;
  const float* momentum;
  float* direction;
  int64_t size;
  float blend;
};

constexpr int kNumReadouts = 5;

/// p <- p (1 - decay) - step f (d + mixture (rms a - d)): see optim/mnemosyne_rule.h for a and f.
/// A coordinate whose step is not finite stays, and *skipped becomes above zero.
///
/// Without `direction` d is a itself. Without `second_moment` a is absent and f = 1.
struct ApplyParams {
  float* param;
  const float* grad;
  const float* momentum;
  const float* second_moment;
  const float* direction;
  int64_t size;
  float step;
  float decay;
  float scale;  ///< of the direction, to a root mean square of about `rms`
  float rms;
  float mixture;              ///< of rms a in a matrix' direction
  float momentum_correction;  ///< 1 / (1 - b1^t)
  float second_correction;    ///< 1 / (1 - b2^t)
  float eps;
  float mean_second_moment;  ///< of the tensor, bias-corrected
  bool corrected;            ///< whether the read-outs below are used
  float bound;               ///< of their effect: f is in 1 - bound to 1 + bound
  float readouts[kNumReadouts];
  int64_t* skipped;
};

}  // namespace mnemosyne::kernels

MN_DECLARE_KERNEL(update_moments, MomentsParams)
MN_DECLARE_KERNEL(blend_direction, BlendParams)
MN_DECLARE_KERNEL(apply_direction, ApplyParams)
