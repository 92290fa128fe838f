#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

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

/// phi(x): x [..., D] and omega [M, D] to [..., R]. Differentiable in x. The caller scales x, for
/// softmax attention by D^(-1/4). kConstant and kElu ignore omega, which may be undefined.
at::Tensor feature_map(FeatureMapKind kind, const at::Tensor& x, const at::Tensor& omega);

/// R for M random vectors; 1 for kConstant. kElu has none: hand in D.
int64_t num_features(FeatureMapKind kind, int64_t num_omegas);

}  // namespace mnemosyne::ops
