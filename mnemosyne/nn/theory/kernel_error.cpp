#include "mnemosyne/nn/theory/kernel_error.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <cmath>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/nn/theory/kernel_moments.h"
#include "mnemosyne/nn/theory/vectors.h"

namespace mnemosyne::nn {
namespace {

/// [P, D], of that length.
at::Tensor directions(const KernelErrorOptions& options, uint64_t which) {
  const at::Tensor x = at::randn({options.pairs, options.dim},
                                 tensor_generator(mix_seeds(options.seed, which)), at::kDouble);
  return options.length * x / x.norm(2, {1}, /*keepdim=*/true);
}

double mean_of(const at::Tensor& x) { return x.mean().item<double>(); }

double deviation_of_mean(const at::Tensor& x) {
  return x.std().item<double>() / std::sqrt(static_cast<double>(x.numel()));
}

}  // namespace

KernelError measure_kernel_error(const KernelErrorOptions& options) {
  const ops::FeatureMapKind kind = estimating_kind(options.feature_map);
  check_option(options.length >= 0 && std::isfinite(options.length), "length",
               "a length of 0 or more", options.length);
  check_option(options.dim >= 1 && options.pairs >= 1, "pairs", "at least one pair and dimension",
               static_cast<double>(std::min(options.dim, options.pairs)));
  check_option(options.draws >= 2, "draws", "at least two draws",
               static_cast<double>(options.draws));
  const at::Tensor x = directions(options, 0), y = directions(options, 1);
  const at::Tensor exact = at::exp((x * y).sum(-1));  // [P]
  at::Tensor bias = at::empty({options.draws}, at::kDouble), squared = at::empty_like(bias);
  for (int64_t draw = 0; draw < options.draws; ++draw) {
    const FeatureMap phi = draw_feature_map(
        options.feature_map, options.dim, options.features, options.independent_vectors,
        derive_seed(options.seed, {2, static_cast<uint64_t>(draw)}));
    const at::Tensor error = (phi(x) * phi(y)).sum(-1) / exact - 1;
    bias[draw] = error.mean();
    squared[draw] = error.square().mean();
  }
  const auto vectors = static_cast<double>(num_omegas(kind, options.features));
  return {mean_of(bias), deviation_of_mean(bias), mean_of(squared), deviation_of_mean(squared),
          mean_of(estimate_variance(kind, x, y) / exact.square()) / vectors};
}

}  // namespace mnemosyne::nn
