#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "mnemosyne/core/named_tensors.h"
#include "mnemosyne/nn/functional_call.h"
#include "mnemosyne/optim/chunk_tokens.h"
#include "mnemosyne/optim/step_attention.h"
#include "mnemosyne/optim/weight_axes.h"

namespace mnemosyne::optim {

// P = networks, T = tensors, C = chunks, M = meta-tokens of one network, S = numbers that a memory
// keeps.

/// What attention needs to know before a step: of a list of P networks of the same shapes.
struct AttentionPlan {
  ChunkGeometry geometry{};           ///< Of the whole list.
  nn::EncoderPlan encoder{};          ///< Of each network.
  std::vector<at::Tensor> tensors{};  ///< Weights and then buffers; weights of several [P, ...].
  int64_t networks = 1;
};

/// A StepAttention as a function of its weights, of which a rule has its own.
class LearnedAttention {
 public:
  /// With the weights that nothing has been learned with; of features with or without those of the
  /// alignment with previous updates.
  LearnedAttention(const StepAttentionOptions& options, bool aligned);

  /// Parameters by their dotted names after "attention.".
  const NamedTensors& weights() const { return weights_; }
  LearnedAttention with_weights(const NamedTensors& weights) const;
  /// What the weights' rows and columns belong to.
  void add_axes(WeightAxes& axes) const;

  /// The plan of a list of P networks with attentions of the same options, one after the other,
  /// this one's first. Where no weight requires a gradient it is kept for the next step.
  std::shared_ptr<const AttentionPlan> plan(const std::vector<const LearnedAttention*>& networks,
                                            at::TensorList params, at::Device device) const;

  /// `StepAttentionImpl::forward` of every network of a plan, in the dtype of the weights, on the
  /// device of the features: features [P T,F], chunk features [P C,...], `memory` [P M,S] and
  /// `network_memory` [P,S] to outputs [P T,K] and [P C]. The memories keep their own dtype;
  /// streams of theirs that are not finite begin anew. Several networks are one batch, without a
  /// graph.
  AttendedOutputs operator()(const AttentionPlan& plan, const at::Tensor& features,
                             const at::Tensor& chunks, at::Tensor& memory,
                             at::Tensor& network_memory) const;

  int64_t meta_tokens(int64_t numel) const { return module_->meta_tokens(numel); }
  int64_t state_size() const { return module_->state_size(); }

 private:
  /// The plans that were asked for last.
  struct Plans;

  AttentionPlan make_plan(const std::vector<const LearnedAttention*>& networks,
                          at::TensorList params, at::Device device, bool constant) const;
  void add_factors(AttentionPlan& plan) const;
  AttendedOutputs run_one(const AttentionPlan& plan, const at::Tensor& features,
                          const at::Tensor& chunks, at::Tensor& memory,
                          at::Tensor& network_memory) const;
  AttendedOutputs run_all(const AttentionPlan& plan, const at::Tensor& features,
                          const at::Tensor& chunks, at::Tensor& memory,
                          at::Tensor& network_memory) const;

  StepAttentionOptions options_;
  bool aligned_;
  StepAttention module_;  // whose weights are those of no rule
  std::shared_ptr<const nn::FunctionalModule> functional_;
  std::vector<size_t> places_;
  NamedTensors weights_;
  std::shared_ptr<Plans> plans_;
};

}  // namespace mnemosyne::optim
