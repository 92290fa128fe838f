#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mnemosyne/optim/learned_attention.h"
#include "mnemosyne/optim/orthogonal.h"

namespace mnemosyne::optim {

struct TensorFacts;

struct MnemosyneRuleOptions {
  OrthogonalOptions base = {};  ///< The rule that the learned part corrects.
  bool learned = true;          ///< false leaves exactly the base rule.
  double step_bound = 0.0;      ///< Largest change of a tensor's log step, 0 to 3; 0 leaves it.
  double mixture_bound = 0.5;   ///< Largest share of Adam's direction in a matrix's, 0 to 1.
  bool guard = true;            ///< Damps what is decided where gradients run away (step_guard.h).
  StepAttentionOptions attention = {};  ///< Beside the controller: over space and time.
  bool alignment = false;  ///< Whether it sees gradients beside the update of the step before.
  /// Of the state: "bfloat16" is rounded at random, "float32" is float64 for float64 parameters.
  std::string second_moment = "float32";
};

/// The default Mnemosyne: the base rule (orthogonal.h) with a bounded learned correction.
///
/// Two memories a coordinate, m and v (discounted means of g and g^2, as associative memories with
/// constant features give them; discounts b1 and b2), and running signals a tensor. In each step
///
///   1. Signals. Per tensor, from sums that the moments' pass yields: the cosine between g and m
///      averaged over about 5 and 50 steps, the logarithm of |g| likewise, and the largest slow
///      average so far.
///   2. Controller. K outputs z = W x (step_outputs.h) from F bounded features x of the tensor
///      (step_features.h), some of them averages over all tensors of the step. From them
///
///          step     s <- s exp(B tanh z0)        B = step_bound
///          blend    n <- n exp(1.5 tanh z1)      weight of g in d = m + n (g - m)
///          mixture  w = M tanh(z2)               of r a beside D, for a matrix; M = mixture_bound
///          readouts c_k = 2 z_{3+k}              k = 0..4
///          decay    e = max(0, tanh z8)          beside the weight decay that the user asks for
///
///   3. Coordinates. With D the base direction, r = .2 its root mean square (kDirectionRms),
///      a = m^ / (sqrt v^ + eps), gn = g / (sqrt v^ + eps), u = D / r for a matrix and D for a
///      vector, share = v^ / (v^ + mean v^), soft(x) = x / (1 + |x|),
///
///          h = c0 soft(u a) + c1 soft(u gn) + c2 soft |a| + c3 soft |u| + c4 (share - 1/2)
///          p <- p - s ((D + w (r a - D)) (1 + 3/4 soft h) + e p)
///
///      so that a coordinate moves between 1/4 and 7/4 of what its tensor does: no sign changes.
///
/// With `attention` a network of some thousand weights looks at the chunks of every tensor, at the
/// tensors of the list together, and at what it saw in earlier steps (step_attention.h). It adds to
/// z of every tensor, and a bounded factor to the step of every chunk that keeps the norm of its
/// tensor's: with y the numbers of chunks, f = exp(B tanh y) and n their sizes, each chunk moves by
/// f / sqrt(sum n f^2 / sum n).
///
/// With `alignment` the state has u, what the step before took off each parameter, s (D + w (r a -
/// D)) (1 + 3/4 soft h), in bfloat16: neither weight decay nor e p is in it. The features, and
/// those of chunks, then include how a gradient agrees with u (step_features.h): a step that is too
/// small is one that the next gradient would take again. Nothing is differentiated through u.
///
/// With `guard`, z and y are multiplied by a number that is 1 while the gradients behave and falls
/// to 0 where their norms run away (step_guard.h); `StepOptions::damped` counts the tensors.
///
/// With W = 0 (and zero heads) every correction vanishes and the rule is the base rule. Nothing
/// depends on names of layers, nor, as long as gradients are large against eps, on the scale of the
/// loss. State: 8 bytes a parameter and 5 numbers a tensor (4 bytes for matrices with `learned =
/// false`); with a second moment in bfloat16 6 bytes; with alignment 2 bytes and 5 numbers more;
/// with attention 500 bytes more for every 8,192 parameters, and for the list.
///
/// Encoder and associative memories are the method's (arXiv 2302.01128); base, controller, bounds
/// and chunk statistics as tokens are ours.
class MnemosyneRule : public UpdateRule {
 public:
  /// Nothing has been learned: the base rule.
  explicit MnemosyneRule(MnemosyneRuleOptions options = {});

  std::string name() const override { return "mnemosyne"; }
  StateLayout state_layout(const at::Tensor& param) const override;
  StateLayout shared_layout() const override;
  std::shared_ptr<const UpdateRule> elementwise() const override { return base_.elementwise(); }
  double default_lr() const override { return 1.0; }
  std::optional<double> default_momentum() const override { return base_.default_momentum(); }
  std::vector<double> step_sizes(const State& state, at::TensorList params,
                                 const StepOptions& options) const override;
  std::string options_json() const override;
  bool steps_with(const UpdateRule& other) const override;
  NamedTensors weights() const override;
  WeightAxes weight_axes() const override;
  std::shared_ptr<UpdateRule> with_weights(const NamedTensors& weights) const override;

 protected:
  UpdateResult do_update(at::TensorList grads, const State& state, at::TensorList params,
                         const StepOptions& options) const override;
  void do_step_(at::TensorList grads, State& state, at::TensorList params,
                const StepOptions& options, const std::vector<double>& shrink) const override;
  void do_step_members_(const std::vector<MemberStep>& members) const override;
  bool steps_with_factors() const override { return true; }
  // What a step takes off is remembered with its factor.
  bool is_linear_in_lr() const override { return !previous_update().has_value(); }

 private:
  /// What one network of a list needs beside the list.
  struct Network {
    const MnemosyneRule* rule;
    at::TensorList params;
    size_t first = 0;  // of the list
    std::vector<TensorFacts> facts;
    std::vector<at::Tensor>* shared;
    Decisions* decisions = nullptr;
    DeferredCount* damped = nullptr;
  };

  bool has_memory() const { return attention_ && attention_->state_size() > 0; }
  /// Where the state has u, if it has.
  std::optional<size_t> previous_update() const;
  std::vector<TensorFacts> facts_of(const State& state, at::TensorList params,
                                    const StepOptions& options) const;
  bool has_compact_second_moment() const { return options_.second_moment == kBFloat16; }
  /// Adds what this rule asks of a list beside the base rule, before its step has been counted.
  void complete(StepList::Inputs& inputs) const;
  int64_t chunk_size() const { return attention_ ? options_.attention.chunk_size : 0; }

  /// Advances the signals of a list; the features of its tensors.
  static at::Tensor advance_signals(StepList& list, const std::vector<Network>& networks,
                                    const ops::StepSums& sums);
  /// Advances a list, its signals and memories; the outputs of these networks, one after the other,
  /// as corrections.
  ops::StepCorrection correct(StepList& list, const std::vector<Network>& networks) const;
  /// What is decided with the guard's trust in it.
  void guard(const std::vector<Network>& networks, const at::Tensor& features, at::Tensor& tensors,
             at::Tensor& chunks, const AttentionPlan* plan) const;
  /// What attention says of the networks, whose memories it advances.
  AttendedOutputs attend(StepList& list, const std::vector<Network>& networks,
                         const AttentionPlan& plan, const at::Tensor& features,
                         const at::Tensor& chunks) const;
  std::shared_ptr<const AttentionPlan> attention_plan(const std::vector<Network>& networks,
                                                      at::TensorList params,
                                                      at::Device device) const;
  void step_joined_(const std::vector<MemberStep>& members) const;

  static constexpr char kBFloat16[] = "bfloat16";

  MnemosyneRuleOptions options_;
  OrthogonalRule base_;
  at::Tensor controller_;  // [K, F]
  std::optional<LearnedAttention> attention_;
};

std::shared_ptr<UpdateRule> make_mnemosyne_rule(const std::string& options_json);

}  // namespace mnemosyne::optim
