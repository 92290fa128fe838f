#include "mnemosyne/nn/theory/attention_error.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <cmath>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/nn/associative_memory.h"
#include "mnemosyne/nn/theory/kernel_moments.h"
#include "mnemosyne/nn/theory/vectors.h"

namespace mnemosyne::nn {
namespace {

/// B = sequences.
struct Tokens {
  at::Tensor keys;     // [B, T, D]
  at::Tensor values;   // [B, T, V]
  at::Tensor queries;  // [B, 1, D], of the last token
};

Tokens draw_tokens(const AttentionErrorOptions& options) {
  const double scale = options.length / std::sqrt(static_cast<double>(options.dim));
  const auto normal = [&](int64_t length, int64_t dim, uint64_t which) {
    return at::randn({options.sequences, length, dim},
                     tensor_generator(mix_seeds(options.seed, which)), at::kDouble);
  };
  return {scale * normal(options.tokens, options.dim, 0),
          normal(options.tokens, options.value_dim, 1), scale * normal(1, options.dim, 2)};
}

/// gamma^(T-1-i), [T]
at::Tensor discounts(const AttentionErrorOptions& options) {
  return at::full({}, options.gamma, at::kDouble)
      .pow(at::arange(options.tokens - 1, -1, -1, at::kDouble));
}

AssociativeState write_all(const AssociativeMemory& memory, const Tokens& tokens, double gamma) {
  AssociativeState state =
      memory.init(tokens.keys.size(0), 1, tokens.values.size(2), tokens.keys.options());
  const at::Tensor decay = at::full({1}, gamma, tokens.keys.options());
  for (int64_t t = 0; t < tokens.keys.size(1); ++t) {
    state = memory.write(state, tokens.keys.narrow(1, t, 1), tokens.values.narrow(1, t, 1), decay);
  }
  return state;
}

void check(const AttentionErrorOptions& options) {
  check_option(options.gamma > 0 && options.gamma <= 1, "gamma", "a number above 0 and up to 1",
               options.gamma);
  check_option(options.length >= 0 && std::isfinite(options.length), "length",
               "a length of 0 or more", options.length);
  const int64_t least =
      std::min({options.dim, options.value_dim, options.tokens, options.sequences, options.draws});
  check_option(least >= 1, "attention_error", "sizes of at least 1", static_cast<double>(least));
}

/// Discounted softmax attention, and how far random vectors are from it.
struct Limit {
  at::Tensor output;      // [B, 1, V]
  double squared_length;  // mean |o|^2
  double variance;        // of one vector: mean |o' - o|^2 to first order
};

Limit attend(const AttentionErrorOptions& options, const Tokens& tokens) {
  const at::Tensor discount = discounts(options);
  const at::Tensor weights = discount * (tokens.keys * tokens.queries).sum(-1).exp();  // [B, T]
  const at::Tensor total = weights.sum(-1).view({-1, 1, 1});
  const at::Tensor output = at::matmul(weights.unsqueeze(1), tokens.values) / total;
  const at::Tensor a = discount * ((tokens.values - output) / total).transpose(1, 2);  // [B, V, T]
  const at::Tensor variance = sum_of_estimates(estimating_kind(options.feature_map), a, tokens.keys,
                                               tokens.queries.expand_as(tokens.keys))
                                  .variance;
  return {output, output.square().sum(-1).mean().item<double>(),
          variance.sum(-1).mean().item<double>()};
}

}  // namespace

AttentionError measure_attention_error(const AttentionErrorOptions& options) {
  check(options);
  const int64_t vectors = num_omegas(estimating_kind(options.feature_map), options.features);
  const Tokens tokens = draw_tokens(options);
  const Limit limit = attend(options, tokens);
  AttentionError result;
  result.predicted =
      std::sqrt(limit.variance / static_cast<double>(vectors) / limit.squared_length);
  double sum = 0, sum_of_squares = 0;
  for (int64_t draw = 0; draw < options.draws; ++draw) {
    const AssociativeMemory memory(draw_feature_map(
        options.feature_map, options.dim, options.features, options.independent_vectors,
        derive_seed(options.seed, {3, static_cast<uint64_t>(draw)})));
    const AssociativeState state = write_all(memory, tokens, options.gamma);
    const at::Tensor error = memory.read(state, tokens.queries) - limit.output;
    const double squared = error.square().sum(-1).mean().item<double>() / limit.squared_length;
    sum += squared;
    sum_of_squares += squared * squared;
    result.state_numbers = (state.sums.numel() + state.normaliser.numel()) / options.sequences;
  }
  const auto draws = static_cast<double>(options.draws);
  const double mean = sum / draws;
  const double variance = std::max(0.0, sum_of_squares / draws - mean * mean) / (draws - 1);
  result.relative = std::sqrt(mean);
  result.relative_deviation = std::sqrt(variance) / (2 * result.relative);
  return result;
}

}  // namespace mnemosyne::nn
