#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mnemosyne/core/named_tensors.h"
#include "mnemosyne/nn/functional_call.h"
#include "mnemosyne/optim/coordinate_tokens.h"
#include "mnemosyne/optim/tensorwise_network.h"
#include "mnemosyne/optim/weight_axes.h"

namespace mnemosyne::optim {

// N = coordinates, T = tensors, M = meta-tokens, S = numbers that a memory keeps, F and G =
// features of a coordinate and of a tensor (coordinate_tokens.h).

/// What the network needs to know of a list before a step.
struct TensorwisePlan {
  CoordinatePlaces places{};
  nn::EncoderPlan encoder{};
};

/// A TensorwiseNetwork as a function of its weights, of which a rule has its own.
class LearnedTensorwise {
 public:
  /// With the weights that nothing has been learned with.
  explicit LearnedTensorwise(const TensorwiseNetworkOptions& options);

  /// Parameters by their dotted names.
  const NamedTensors& weights() const { return weights_; }
  /// InputError, said to come from `rule`, for other names or shapes.
  LearnedTensorwise with_weights(const std::string& rule, const NamedTensors& weights) const;
  /// What the weights' columns belong to.
  WeightAxes axes() const;

  /// Of a list of these shapes; that of the last few lists is kept.
  std::shared_ptr<const TensorwisePlan> plan(at::TensorList params, at::Device device) const;

  /// `TensorwiseNetworkImpl::forward` with these weights: tokens [N,F], tensors [T,G] and `memory`
  /// [M,S], all of one dtype and device, to [N,2]. Streams of the memory that are not finite begin
  /// anew.
  at::Tensor operator()(const TensorwisePlan& plan, const at::Tensor& tokens,
                        const at::Tensor& tensors, at::Tensor& memory) const;

  at::ScalarType dtype() const { return weights_.front().second.scalar_type(); }
  int64_t meta_tokens(int64_t numel) const { return module_->meta_tokens(numel); }
  int64_t state_size() const { return module_->state_size(); }

 private:
  /// The plans that were asked for last.
  struct Plans;

  TensorwiseNetworkOptions options_;
  TensorwiseNetwork module_;  // whose weights are those of no rule
  std::shared_ptr<const nn::FunctionalModule> functional_;
  std::vector<size_t> places_;
  NamedTensors weights_;
  std::shared_ptr<Plans> plans_;
};

}  // namespace mnemosyne::optim
