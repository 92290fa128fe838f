#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "mnemosyne/core/fields.h"
#include "mnemosyne/nn/hierarchical_encoder.h"
#include "mnemosyne/nn/temporal_memory.h"

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

/// A spatial encoder of chunks, tensors and the network (nn::HierarchicalEncoder) with a memory
/// over time (nn::TemporalMemory), of which every meta-token and the network's token are a stream.
/// Its heads start from zero.
class StepAttentionImpl : public torch::nn::Module {
 public:
  /// F, K, and whether the features have those of the alignment with previous updates.
  StepAttentionImpl(const StepAttentionOptions& options, int64_t num_features, int64_t num_outputs,
                    bool aligned = false);

  /// features [T,F] and chunk features [C,...] of one network, whose chunks are where `plan` has
  /// them (`encoder->plan`); `memory` [M,S] and `network_memory` [1,S] move on by being replaced
  /// (they may be undefined without a memory).
  AttendedOutputs forward(const at::Tensor& features, const at::Tensor& chunks,
                          const nn::EncoderPlan& plan, at::Tensor& memory,
                          at::Tensor& network_memory) const;

  /// M of a tensor of so many coordinates, and S.
  int64_t meta_tokens(int64_t numel) const;
  int64_t state_size() const;

  std::shared_ptr<torch::nn::Module> clone(
      const std::optional<at::Device>& device = std::nullopt) const override;

  nn::HierarchicalEncoder encoder{nullptr};
  nn::TemporalMemory memory{nullptr};
  nn::Norm tensor_norm{nullptr}, chunk_norm{nullptr};
  nn::Dense tensor_head{nullptr}, chunk_head{nullptr};

 private:
  StepAttentionOptions options_;
  int64_t num_features_, num_outputs_;
  bool aligned_;
};

TORCH_MODULE(StepAttention);

}  // namespace mnemosyne::optim
