#pragma once

#include <memory>
#include <string>

#include "mnemosyne/tasks/task.h"

namespace mnemosyne::tasks {

struct QuadraticOptions {
  int64_t rows = 12;         ///< Of the matrix; at least two.
  int64_t columns = 8;       ///< Of the matrix; at least two.
  double condition = 100.0;  ///< Largest over smallest curvature, of the matrix and of the vector.
  double noise = 0.1;        ///< Standard deviation of the optimum from one batch to the next.
  uint64_t seed = 0;         ///< Draws the optimum and the directions of curvature.
};

/// A matrix W [m,n] and a vector v [m] that have to find their places W* and v*:
///
///     loss = (mean (R (W - W* - noise) S)^2 + mean (s (v - v* - noise))^2) / 2
///
/// with random rotations and geometric spectra in R [m,m], S [n,n] and s [m], whose largest value
/// is 1. The noise moves the optimum, as another batch does, so that the gradient's noise lies
/// along the curvature and the loss has a floor. Without data, and with nothing to hold out but the
/// noise.
std::shared_ptr<const Task> make_quadratic(std::string name, const QuadraticOptions& options = {});

}  // namespace mnemosyne::tasks
