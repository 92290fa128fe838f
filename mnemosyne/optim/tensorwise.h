#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mnemosyne/core/fields.h"
#include "mnemosyne/optim/learned_tensorwise.h"
#include "mnemosyne/optim/orthogonal.h"
#include "mnemosyne/optim/step_list.h"
#include "mnemosyne/optim/update_rule.h"

namespace mnemosyne::optim {

struct TensorwiseOptions {
  OrthogonalOptions base = {};   ///< The rule that the learned part corrects.
  bool learned = true;           ///< false leaves exactly the base rule.
  double direction_bound = 0.5;  ///< Largest change of a coordinate's direction, 0 to 2, in units
                                 ///< of the usual root mean square of its tensor's.
  double magnitude_bound = 0.7;  ///< Largest change of a coordinate's log step, 0 to 3.
  TensorwiseNetworkOptions network = {};
};

/// Tensor-wise Mnemosyne, of which a coordinate is a token: hierarchical pooling encoding of the
/// coordinates of all tensors, a compact associative memory over time for every meta-token, and a
/// decoder that gives every coordinate a direction and a log-magnitude (tensorwise_network.h), a
/// bounded correction of the base rule (orthogonal.h):
///
///     p <- p - s exp(M tanh y1) (D + r B tanh y0)
///
/// with D the base direction, orthogonalised for matrices and Adam's for the rest, s the base
/// rule's step size, B = direction_bound, M = magnitude_bound, and r = kDirectionRms for matrices
/// and 1 for the rest. What the network sees does not depend on the scales of loss and parameters
/// (coordinate_tokens.h).
///
/// With W = c = 0 in the decoder, as before meta-training, it is the base rule. State: two moments,
/// 8 bytes a parameter, and for every meta-token of up to 512 coordinates 123 numbers of memory,
/// .96 bytes a parameter of large tensors.
///
///     auto rule = optim::default_rule("mnemosyne-tensor");
///
/// The system is that of arXiv 2302.01128 (tensor-wise variant); base, features, decoder and bounds
/// are ours. InputError for options out of range.
class TensorwiseRule : public UpdateRule {
 public:
  /// Nothing has been learned: the base rule.
  explicit TensorwiseRule(TensorwiseOptions options = {});

  std::string name() const override { return "mnemosyne-tensor"; }
  StateLayout state_layout(const at::Tensor& param) const override;
  std::shared_ptr<const UpdateRule> elementwise() const override { return base_.elementwise(); }
  double default_lr() const override { return 1.0; }
  std::optional<double> default_momentum() const override { return base_.default_momentum(); }
  std::vector<double> step_sizes(const State& state, at::TensorList params,
                                 const StepOptions& options) const override;
  std::string options_json() const override;
  NamedTensors weights() const override;
  WeightAxes weight_axes() const override;
  std::shared_ptr<UpdateRule> with_weights(const NamedTensors& weights) const override;

  const TensorwiseOptions& options() const { return options_; }

  /// A list of these steps, before it is advanced: moments and memories of `state`, whose tensors
  /// are written where the form says so, at places 0 to 3.
  StepList list(StepList::Form form, at::TensorList grads, const State& state,
                at::TensorList params, const StepOptions& options) const;

  /// Advances moments and memories of such a list; the updates of its tensors, without weight decay
  /// and the factors of `options`. Differentiable in the weights.
  std::vector<at::Tensor> advance(StepList& list, at::TensorList grads,
                                  const StepOptions& options) const;

 protected:
  UpdateResult do_update(at::TensorList grads, const State& state, at::TensorList params,
                         const StepOptions& options) const override;
  void do_step_(at::TensorList grads, State& state, at::TensorList params,
                const StepOptions& options, const std::vector<double>& shrink) const override;
  /// Adam's direction in the base rule's units.
  at::Tensor fallback_update(const at::Tensor& grad, const ParamState& state,
                             const at::Tensor& param, const StepOptions& options) const override;
  bool steps_with_factors() const override { return true; }

 private:
  friend class SuperRule;

  struct Flat;

  Flat flat(StepList& list, at::TensorList grads, const StepOptions& options,
            const ops::StepSums& sums, const TensorwisePlan& plan) const;
  at::Tensor decide(StepList& list, const Flat& flat, const at::Tensor& tensors,
                    const TensorwisePlan& plan) const;

  TensorwiseOptions options_;
  OrthogonalRule base_;
  std::optional<LearnedTensorwise> network_;
};

/// Names the options.
void bind(Fields& visit, TensorwiseOptions& options);

/// Registry entry "mnemosyne-tensor", with untrained weights.
std::shared_ptr<UpdateRule> make_tensorwise_rule(const std::string& options_json);

}  // namespace mnemosyne::optim
