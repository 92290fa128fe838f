#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace mnemosyne::nn {

/// The laws that position frequencies are drawn from, each of unit scale.
///
///     kGaussian  N(0, I)
///     kCauchy    independent Cauchy coordinates: transform of exp(-|z|_1)
///     kStudent   multivariate t, the transform of the Matern kernel
///     kFejer     independent coordinates of density sinc^2, the transform of the tent
enum class FrequencyLaw { kGaussian, kCauchy, kStudent, kFejer };

/// How points are spread.
///
///     kQuasiRandom  a lattice with a random shift: every point has the law, so estimates are
///                   unbiased, and together they cover it evenly
///     kOrthogonal   blocks of orthogonal directions with independent lengths; kGaussian and
///                   kStudent only
///     kIndependent  plain sampling
enum class DrawKind { kQuasiRandom, kOrthogonal, kIndependent };

/// "quasi_random", "orthogonal" or "independent"; InputError that lists them otherwise.
DrawKind draw_kind(const std::string& name);

struct FrequencyDraws {
  FrequencyLaw law = FrequencyLaw::kGaussian;
  DrawKind kind = DrawKind::kQuasiRandom;
  int64_t groups = 1;   ///< G, independent of one another.
  int64_t count = 1;    ///< N, points of a group.
  int64_t dim = 1;      ///< D.
  int64_t degrees = 3;  ///< Of freedom, of kStudent.
  /// Where only even functions of a frequency matter, points and their negatives are the same:
  /// quasi-random ones are then spread over half of the space, which covers it twice as densely.
  bool even = false;
  uint64_t seed = 0;
};

/// Draws [G, N, D], float64, the same for the same options.
at::Tensor draw_frequencies(const FrequencyDraws& draws);

}  // namespace mnemosyne::nn
