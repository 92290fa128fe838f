#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "mnemosyne/ops/feature_map.h"

namespace mnemosyne::nn {

/// Options of a FeatureMap.
struct FeatureMapOptions {
  std::string name = "favor+";  ///< One of `feature_map_names()`.
  int64_t dim = 4;              ///< D, the size of what is mapped.
  int64_t num_features = 4;     ///< R; even for "hyp+" and "trig", 1 for "constant".
  uint64_t seed = 0;            ///< Of the random vectors.
};

/// The names that options use: "constant", "favor+", "hyp+", "trig", "relu".
std::vector<std::string> feature_map_names();

/// The kind behind a name; InputError that lists the names when there is none.
ops::FeatureMapKind feature_map_kind(const std::string& name);

/// How many random vectors give `num_features` features; InputError when no number does.
int64_t num_omegas(ops::FeatureMapKind kind, int64_t num_features);

/// Random vectors [count, dim], float64, each N(0, I): directions orthogonal within blocks of dim,
/// lengths independent, which keeps estimates unbiased and lowers their variance. The same for the
/// same seed.
at::Tensor draw_omega(int64_t count, int64_t dim, uint64_t seed);

/// A random feature map with its vectors drawn once.
///
///     nn::FeatureMap phi({.name = "hyp+", .dim = 8, .num_features = 64});
///     at::Tensor estimate = at::matmul(phi(q), phi(k).t());   // E = exp(q k^T), [L, L]
class FeatureMap {
 public:
  explicit FeatureMap(const FeatureMapOptions& options);

  /// With vectors omega [M, D] from elsewhere, for example from a weights file.
  FeatureMap(ops::FeatureMapKind kind, at::Tensor omega);

  /// [..., D] -> [..., R], in the dtype and on the device of x.
  at::Tensor operator()(const at::Tensor& x) const;

  /// The same, as features that are not large and what they are multiplied by.
  ops::ScaledFeatures scaled(const at::Tensor& x) const;

  ops::FeatureMapKind kind() const { return kind_; }
  const at::Tensor& omega() const { return omega_; }  ///< [M, D]; undefined for "constant".
  int64_t num_features() const;

 private:
  ops::FeatureMapKind kind_;
  at::Tensor omega_;
};

}  // namespace mnemosyne::nn
