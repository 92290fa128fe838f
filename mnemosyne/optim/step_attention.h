#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mnemosyne/core/fields.h"
#include "mnemosyne/nn/functional_call.h"
#include "mnemosyne/nn/hierarchical_encoder.h"
#include "mnemosyne/nn/temporal_memory.h"
#include "mnemosyne/optim/chunk_tokens.h"
#include "mnemosyne/optim/weight_axes.h"

namespace mnemosyne::optim {

// T = tensors, C = chunks of all of them, M = meta-tokens of all of them, F = features of a tensor,
// K = outputs, S = numbers that a memory keeps.

/// Attention over space and time in the default Mnemosyne.
struct StepAttentionOptions {
  bool enabled = false;
  int64_t chunk_size = 512;   ///< Coordinates of a chunk, in row-major order.
  int64_t chunk_length = 16;  ///< Chunks of a meta-token.
  int64_t width = 16;         ///< E.
  int64_t heads = 2;
  std::string position = "flt";  ///< Of chunks in their tensor: "flt", "absolute" or "none".
  bool memory = true;            ///< false: no attention over time.
  bool chunks = true;            ///< false: every chunk moves as its tensor does.
  double chunk_bound = 0.5;      ///< Largest change of a chunk's log step, before its tensor's norm
                                 ///< is restored; 0 to 3.

  bool operator==(const StepAttentionOptions&) const = default;
};

/// Names the options, with "attention_" before each.
void bind(Fields& visit, StepAttentionOptions& options);

/// InputError for a value out of range.
void validate(const StepAttentionOptions& options);

/// What attention adds to the learned outputs.
struct AttendedOutputs {
  at::Tensor tensors;  ///< [T,K]
  at::Tensor chunks;   ///< [C], of the logarithm of the step; undefined with `chunks = false`.
};

/// A spatial encoder of chunks, tensors and the network (nn::HierarchicalEncoder) with memories
/// over time (nn::TemporalMemory) of every meta-token and of the network's token. Its heads start
/// from zero.
class StepAttentionImpl : public torch::nn::Module {
 public:
  StepAttentionImpl(const StepAttentionOptions& options, int64_t num_features, int64_t num_outputs);

  /// features [T,F] and chunk features of one network; `memory` [M,S] and `network_memory` [1,S]
  /// move on by being replaced (they may be undefined without a memory).
  AttendedOutputs forward(const at::Tensor& features, const at::Tensor& chunks,
                          const ChunkGeometry& geometry, at::Tensor& memory,
                          at::Tensor& network_memory) const;

  /// M of a tensor of so many coordinates, and S.
  int64_t meta_tokens(int64_t numel) const;
  int64_t state_size() const;

  std::shared_ptr<torch::nn::Module> clone(
      const std::optional<at::Device>& device = std::nullopt) const override;

  nn::HierarchicalEncoder encoder{nullptr};
  nn::TemporalMemory memory{nullptr}, network_memory{nullptr};
  nn::Norm tensor_norm{nullptr}, chunk_norm{nullptr};
  nn::Dense tensor_head{nullptr}, chunk_head{nullptr};

 private:
  StepAttentionOptions options_;
  int64_t num_features_, num_outputs_;
};

TORCH_MODULE(StepAttention);

/// A StepAttention as a function of its weights, of which a rule has its own.
class LearnedAttention {
 public:
  /// With the weights that nothing has been learned with.
  LearnedAttention(const StepAttentionOptions& options, int64_t num_features, int64_t num_outputs);

  /// Parameters by their dotted names after "attention.".
  const NamedTensors& weights() const { return weights_; }
  LearnedAttention with_weights(const NamedTensors& weights) const;
  /// What the weights' rows and columns belong to.
  void add_axes(WeightAxes& axes) const;

  /// `StepAttentionImpl::forward` in the dtype of the weights, on the device of the features. The
  /// memories keep their own dtype; streams of theirs that are not finite begin anew.
  AttendedOutputs operator()(const at::Tensor& features, const at::Tensor& chunks,
                             const ChunkGeometry& geometry, at::Tensor& memory,
                             at::Tensor& network_memory) const;

  int64_t meta_tokens(int64_t numel) const { return module_->meta_tokens(numel); }
  int64_t state_size() const { return module_->state_size(); }

 private:
  /// Weights and then buffers on another device than the CPU, brought there once.
  struct Copies;

  std::vector<at::Tensor> tensors_on(at::Device device) const;

  StepAttention module_;  // whose weights are those of no rule
  std::shared_ptr<const nn::FunctionalModule> functional_;
  std::vector<size_t> places_;
  NamedTensors weights_;
  std::shared_ptr<Copies> copies_;
};

}  // namespace mnemosyne::optim
