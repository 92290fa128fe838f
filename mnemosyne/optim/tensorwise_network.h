#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mnemosyne/core/fields.h"
#include "mnemosyne/nn/hierarchical_encoder.h"
#include "mnemosyne/nn/temporal_memory.h"

namespace mnemosyne::optim {

// N = coordinates of all tensors, T = tensors, M = meta-tokens of all of them, S = numbers that a
// memory keeps, F = features of a coordinate, G = features of a tensor, E = width, U = hidden
// units.

struct TensorwiseNetworkOptions {
  int64_t width = 8;  ///< E.
  int64_t heads = 2;  ///< Of the attention over space.
  /// Coordinates of a chunk, chunks of a chunk of chunks, ...: their product is what a meta-token
  /// stands for.
  std::vector<int64_t> chunk_lengths = {16, 32};
  std::string position = "none";  ///< Of coordinates in their tensor: "flt", "absolute", "none".
  bool memory = true;             ///< false: no attention over time.
  std::vector<double> discounts = {0.5, 0.9, 0.99};  ///< Of the memory's heads at the start.
  int64_t hidden = 16;                               ///< U, of the decoder.
  int64_t seed = 0;  ///< Of the initial weights and the random features.

  bool operator==(const TensorwiseNetworkOptions&) const = default;
};

/// Names the options.
void bind(Fields& visit, TensorwiseNetworkOptions& options);

/// InputError, said to come from `rule`, for a value out of range.
void validate(const TensorwiseNetworkOptions& options, const std::string& rule);

/// The network of tensor-wise Mnemosyne, arXiv 2302.01128: coordinates are the tokens of a
/// hierarchical pooling encoder (nn::HierarchicalEncoder), whose meta-tokens are streams of a
/// compact associative memory over time (nn::TemporalMemory). What the memory answers is un-pooled,
/// each coordinate gets what all levels above it know, and a small network decodes that beside the
/// coordinate's own features x:
///
///     y = W gelu(A x + B norm(context) + b) + c          [N,2]
///
/// W and c start from zero.
class TensorwiseNetworkImpl : public torch::nn::Module {
 public:
  TensorwiseNetworkImpl(const TensorwiseNetworkOptions& options, int64_t num_features,
                        int64_t num_tensor_features);

  /// tokens [N,F] and tensors [T,G], which are where `plan` has them (`encoder->plan`), to [N,2];
  /// `memory` [M,S] moves on by being replaced (undefined without a memory).
  at::Tensor forward(const at::Tensor& tokens, const at::Tensor& tensors,
                     const nn::EncoderPlan& plan, at::Tensor& memory) const;

  /// M of a tensor of so many coordinates, and S.
  int64_t meta_tokens(int64_t numel) const;
  int64_t state_size() const;

  std::shared_ptr<torch::nn::Module> clone(
      const std::optional<at::Device>& device = std::nullopt) const override;

  nn::HierarchicalEncoder encoder{nullptr};
  nn::TemporalMemory memory{nullptr};
  nn::Norm context_norm{nullptr};
  nn::Dense from_features{nullptr}, from_context{nullptr};  ///< A; B and b.
  nn::Dense head{nullptr};                                  ///< W and c.

 private:
  TensorwiseNetworkOptions options_;
  int64_t num_features_, num_tensor_features_;
};

TORCH_MODULE(TensorwiseNetwork);

}  // namespace mnemosyne::optim
