#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace mnemosyne::ops {

/// Random feature maps phi with E[phi(x).phi(y)] = exp(x.y), and three that estimate no such
/// kernel.
///
/// omega_i ~ N(0, I) [M, D]; the number of features is R. Positive maps (all but kTrig) keep sums
/// of phi(q).phi(k) positive, so that a normalised read-out is a weighted mean.
///
///     kConstant  1                                                    R = 1
///     kFavorPlus e^{-|x|^2/2} / sqrt(M)  [e^{w_i x}]                   R = M
///     kHypPlus   e^{-|x|^2/2} / sqrt(2M) [e^{w_i x}, e^{-w_i x}]       R = 2M
///     kTrig      e^{+|x|^2/2} / sqrt(M)  [cos w_i x, sin w_i x]        R = 2M
///     kRelu      relu(w_i x) / sqrt(M) + 1e-3                          R = M
///     kElu       elu(x_i) + 1, without random vectors                  R = D
///
/// Choromanski et al. 2021, "Rethinking Attention with Performers" (arXiv 2009.14794); kElu is that
/// of Katharopoulos et al. 2020, "Transformers are RNNs" (arXiv 2006.16236).
enum class FeatureMapKind { kConstant, kFavorPlus, kHypPlus, kTrig, kRelu, kElu };

/// What there is to know of a map besides its formula.
struct FeatureMapTraits {
  FeatureMapKind kind;
  const char* name;    ///< As options have it.
  int64_t per_vector;  ///< Features of a random vector; 0: the map has no vectors.
  bool estimates;      ///< The kernel exp(x.y): its features need a common offset.
  bool exponential;    ///< Features are exp(w.x + ...): more may be added to the exponents.
  bool positive;       ///< No sum of phi(q).phi(k) is negative.
};

/// The maps, in the order of their kinds: whatever depends on a map asks this table.
inline constexpr FeatureMapTraits kFeatureMaps[] = {
    {FeatureMapKind::kConstant, "constant", 0, false, false, true},
    {FeatureMapKind::kFavorPlus, "favor+", 1, true, true, true},
    {FeatureMapKind::kHypPlus, "hyp+", 2, true, true, true},
    {FeatureMapKind::kTrig, "trig", 2, true, false, false},
    {FeatureMapKind::kRelu, "relu", 1, false, false, true},
    {FeatureMapKind::kElu, "elu+1", 0, false, false, true},
};

constexpr const FeatureMapTraits& traits_of(FeatureMapKind kind) {
  return kFeatureMaps[static_cast<size_t>(kind)];
}

/// The names of the maps, without that of `but`.
std::vector<std::string> feature_map_names(FeatureMapKind but);

/// The kind behind a name, where all maps but `but` are possible; `refuse_choice` otherwise.
FeatureMapKind feature_map_kind(const std::string& where, const std::string& name,
                                FeatureMapKind but);

/// phi(x): x [..., D] and omega [M, D] to [..., R]. Differentiable in x. The caller scales x, for
/// softmax attention by D^(-1/4). kConstant and kElu ignore omega, which may be undefined.
at::Tensor feature_map(FeatureMapKind kind, const at::Tensor& x, const at::Tensor& omega);

/// phi(x) = features e^{log_scale}, where no feature is large.
struct ScaledFeatures {
  at::Tensor features;   ///< [..., R].
  at::Tensor log_scale;  ///< [..., 1], without a graph.
};

/// `feature_map` for any |x|: of maps that estimate a kernel `log_scale` is the largest exponent,
/// so that features are at most 1, and of those that are exponential one of them is 1; of others it
/// is zero.
ScaledFeatures scaled_feature_map(FeatureMapKind kind, const at::Tensor& x,
                                  const at::Tensor& omega);

/// R for M random vectors; 1 for kConstant. kElu has none: hand in D.
int64_t num_features(FeatureMapKind kind, int64_t num_omegas);

}  // namespace mnemosyne::ops
