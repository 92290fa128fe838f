#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mnemosyne/meta/fitness.h"
#include "mnemosyne/meta/rollout.h"
#include "mnemosyne/meta/run_sampler.h"
#include "mnemosyne/optim/update_rule.h"

namespace mnemosyne::meta {

/// How weights are perturbed: member 2k has theta + sigma scale eps_k, member 2k + 1 theta - sigma
/// scale eps_k.
///
/// K = pairs, N = weights.
struct PerturbationOptions {
  int64_t num_pairs = 8;  ///< K: one task trains 2 K networks side by side.
  double sigma = 0.05;    ///< Standard deviation of a weight's perturbation.
  std::vector<std::string> scales =
      {};  ///< "NAME=FACTOR": times sigma for tensors whose name holds NAME.
  FitnessShaping shaping = FitnessShaping::kSpread;
};

/// Factors [N] over `flatten(weights)` from "NAME=FACTOR" entries; the last one that fits a tensor
/// counts. InputError for another form, a negative factor, or a NAME that fits no tensor.
at::Tensor perturbation_scale(const NamedTensors& weights, const std::vector<std::string>& scales);

/// Standard normal draws [K, N] of the weights' dtype, the same for the same seed.
at::Tensor perturbation_noise(const at::Tensor& theta, int64_t num_pairs, uint64_t seed);

/// 2 K members that train with the perturbed rules, told what `run` tells.
/// `offsets` [K, N] is what is added for the even and taken off for the odd members.
std::vector<Member> perturbed_members(const optim::UpdateRule& rule, const at::Tensor& offsets,
                                      const Run& run);

/// mean_k (f_2k - f_2k+1) / (2 sigma) * noise_k / scale, [N]: the antithetic estimate of the
/// gradient of the mean of f under the perturbations (Salimans et al. 2017; Vicol et al. 2021 for
/// summed noise).
at::Tensor antithetic_gradient(const std::vector<double>& fitness, const at::Tensor& noise,
                               const at::Tensor& scale, double sigma);

}  // namespace mnemosyne::meta
