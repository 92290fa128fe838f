#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mnemosyne/core/named_tensors.h"
#include "mnemosyne/meta/process_group.h"
#include "mnemosyne/optim/update_rule.h"

namespace mnemosyne::meta {

/// Where meta-training stands when a gradient is asked for.
struct OuterStep {
  int64_t index = 0;             ///< Outer steps taken so far.
  uint64_t seed = 0;             ///< Of the whole meta-training.
  int64_t horizon = 0;           ///< Longest training run for now, in inner steps.
  int64_t num_workers = 1;       ///< Threads; they change nothing in the result.
  at::Device device = at::kCPU;  ///< Where networks are trained.
  std::shared_ptr<ProcessGroup> processes = alone();  ///< Who shares the runs: as `num_workers`.
};

/// What one task contributed, for reports.
struct RunReport {
  std::string task;
  int64_t num_steps = 0;
  double meta_loss = 0;
};

/// A direction in which the meta-loss grows, over `flatten(rule.weights())`.
struct MetaGradient {
  at::Tensor gradient = {};  ///< [N], the dtype of the weights; zeros when everything was skipped.
  double meta_loss = 0;      ///< Mean over the tasks; NaN when everything was skipped.
  int64_t used = 0;          ///< Tasks or windows that the gradient is the mean of.
  int64_t skipped = 0;       ///< Tasks or windows without a finite result.
  int64_t inner_steps = 0;   ///< Training steps that were spent, summed over members.
  std::vector<RunReport> runs = {};  ///< In the order of the tasks.
};

/// A way to estimate the gradient of what training with a rule costs, with respect to its weights.
///
/// Estimators that carry runs over outer steps keep them inside; `checkpoint` and `restore` make a
/// resumed meta-training equal an uninterrupted one bit for bit. The names are those of Metz et
/// al.'s learned_optimization: one estimator a file.
class GradientEstimator {
 public:
  virtual ~GradientEstimator() = default;

  /// The estimate at the rule's weights, on every rank. The same for any number of workers and
  /// ranks.
  virtual MetaGradient estimate(const optim::UpdateRule& rule, const OuterStep& step) = 0;

  /// Everything that is carried from one outer step to the next, by the ranks that took part in
  /// `estimate`: on rank 0, while the others hand in their own. Nothing by default.
  virtual NamedTensors checkpoint(ProcessGroup& /*processes*/) const { return {}; }

  /// Continues from what `checkpoint` gave on rank 0, on any number of ranks. InputError when it
  /// does not fit.
  virtual void restore(const NamedTensors& /*tensors*/) {}
};

/// Mean of the contributions of several tasks in their order; those without a gradient were
/// skipped.
MetaGradient combine_contributions(const std::vector<MetaGradient>& contributions,
                                   const at::Tensor& weights);

}  // namespace mnemosyne::meta
