#include "mnemosyne/nn/theory/forgetting.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <cmath>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/nn/associative_memory.h"

namespace mnemosyne::nn {
namespace {

int64_t numbers(const AssociativeState& state) {
  return state.sums.numel() + state.normaliser.numel();
}

at::Tensor random_token(const ForgettingOptions& options, uint64_t which) {
  const double scale = 0.5 / std::sqrt(static_cast<double>(options.dim));
  return scale * at::randn({1, 1, options.dim}, tensor_generator(mix_seeds(options.seed, which)),
                           at::kDouble);
}

}  // namespace

Forgetting measure_forgetting(const ForgettingOptions& options) {
  check_option(options.gamma > 0 && options.gamma <= 1, "gamma", "a number above 0 and up to 1",
               options.gamma);
  check_option(options.tokens >= 1, "tokens", "at least one token",
               static_cast<double>(options.tokens));
  const AssociativeMemory memory(FeatureMap({.name = options.feature_map,
                                             .dim = options.dim,
                                             .num_features = options.features,
                                             .seed = options.seed}));
  const at::Tensor key = random_token(options, 0), query = random_token(options, 1);
  const at::Tensor values = at::eye(options.tokens, at::kDouble);
  const at::Tensor gamma = at::full({1}, options.gamma, at::kDouble);
  AssociativeState state = memory.init(1, 1, options.tokens, at::kDouble);
  Forgetting result;
  for (int64_t t = 0; t < options.tokens; ++t) {
    state = memory.write(state, key, values[t].view({1, 1, -1}), gamma);
    if (t == 0) result.numbers_after_first = numbers(state);
  }
  result.numbers_after_last = numbers(state);
  const at::Tensor found = memory.read(state, query).view({-1});
  const double newest = found[options.tokens - 1].item<double>();
  for (int64_t age = 0; age < options.tokens; ++age) {
    const double weight = found[options.tokens - 1 - age].item<double>() / newest;
    const double expected = std::pow(options.gamma, static_cast<double>(age));
    result.weights.push_back(weight);
    result.largest_error = std::max(result.largest_error, std::abs(weight / expected - 1));
  }
  return result;
}

}  // namespace mnemosyne::nn
