#include "mnemosyne/nn/theory/hopfield.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/where.h>

#include <cmath>
#include <string>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/random.h"

namespace mnemosyne::nn {

at::Tensor random_patterns(int64_t patterns, int64_t spins, uint64_t seed) {
  check_option(patterns >= 1, "patterns", "at least one pattern", static_cast<double>(patterns));
  check_option(spins >= 1, "spins", "at least one spin", static_cast<double>(spins));
  return 2.0 * at::randint(2, {patterns, spins}, tensor_generator(seed), at::kDouble) - 1.0;
}

at::Tensor flip_spins(const at::Tensor& states, int64_t flips, uint64_t seed) {
  check_option(flips >= 0 && flips <= states.size(-1), "flips",
               "from 0 to " + std::to_string(states.size(-1)) + " spins",
               static_cast<double>(flips));
  const at::Tensor order =
      at::rand(states.sizes(), tensor_generator(seed), states.options()).argsort(int64_t{-1});
  at::Tensor sign = at::ones_like(states);
  sign.scatter_(-1, order.narrow(-1, 0, flips), -1.0);
  return states * sign;
}

int64_t smallest_distance(const at::Tensor& patterns) {
  const int64_t spins = patterns.size(1);
  if (patterns.size(0) < 2) return spins;
  at::Tensor overlap = at::matmul(patterns, patterns.t());
  overlap.fill_diagonal_(-static_cast<double>(spins));
  return (spins - std::lround(overlap.max().item<double>())) / 2;
}

at::Tensor sweep(const at::Tensor& patterns, const at::Tensor& log_weights, double beta,
                 const at::Tensor& states) {
  const at::Tensor weights = at::softmax(beta * at::matmul(states, patterns.t()) + log_weights, -1);
  return signs(at::matmul(weights, patterns) - std::tanh(beta) * states);
}

at::Tensor signs(const at::Tensor& field) {
  return at::where(field >= 0, at::ones_like(field), -1.0);
}

double log_capacity_bound(int64_t distance, int64_t flips, double beta) {
  return beta * (2.0 * static_cast<double>(distance - 2 * flips) - 2.0);
}

int64_t guaranteed_flips(int64_t patterns, int64_t distance, double beta) {
  const auto holds = [&](int64_t flips) {
    const auto others = static_cast<double>(patterns - 1);
    return patterns == 1 || std::log(others) < log_capacity_bound(distance, flips, beta);
  };
  int64_t flips = -1;
  while (flips < distance / 2 && holds(flips + 1)) ++flips;
  return flips;
}

}  // namespace mnemosyne::nn
