#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mnemosyne/core/fields.h"
#include "mnemosyne/nn/associative_memory.h"
#include "mnemosyne/nn/layer.h"
#include "mnemosyne/nn/module_holder.h"
#include "mnemosyne/nn/module_tensors.h"

namespace mnemosyne::nn {

// B = streams (meta-tokens), E = width, H = heads, D = size of a key, V = of a value, R = features.

/// Options of a TemporalMemory.
struct TemporalMemoryOptions {
  int64_t width = 16;     ///< E.
  int64_t key_dim = 4;    ///< D.
  int64_t value_dim = 4;  ///< V.
  std::string feature_map = "hyp+";
  int64_t num_features = 8;  ///< R.
  std::vector<double> discounts{0.5, 0.9,
                                0.99};  ///< Of each head at the start, in (0, 1); learned.
  /// Of the initial weights and the random features; none: from torch's default generator.
  std::optional<uint64_t> seed{};
};

void bind(Fields& visit, TemporalMemoryOptions& options);

/// Attention over time of B streams of tokens, one token at a time, in a memory that does not grow:
/// the temporal half of Mnemosyne, arXiv 2302.01128 (`AssociativeMemory`).
///
///     y_t = x_t + W_o [o_1 ... o_H]    o_h = what query h finds among the tokens up to this one
///
/// Queries, keys and values are linear in the normalised token; queries and keys are given the
/// length sqrt(temperature of the head), which bounds the variance of random features. Each head
/// forgets by its own discount.
///
///     nn::TemporalMemory memory({.width = 16});
///     at::Tensor state = memory->init(streams, x.options());
///     x = memory->forward(x, state);          // [B,16], and the state after it
class TemporalMemoryImpl : public torch::nn::Module, public TensorFields {
 public:
  /// InputError for options out of range.
  explicit TemporalMemoryImpl(const TemporalMemoryOptions& options);

  /// x [B,E] to [B,E]; `state` [B,state_size()] moves on by being replaced. Differentiable in both.
  at::Tensor forward(const at::Tensor& x, at::Tensor& state) const;

  /// The state before the first token: zeros.
  at::Tensor init(int64_t streams, const at::TensorOptions& options) const;

  /// Numbers that are kept for a stream.
  int64_t state_size() const;

  const TemporalMemoryOptions& options() const { return options_; }

  std::shared_ptr<torch::nn::Module> clone(
      const std::optional<at::Device>& device = std::nullopt) const override;

  Norm norm{nullptr};
  Dense address{nullptr};      ///< E to 2 H D, queries and then keys, without bias.
  Dense value{nullptr};        ///< E to H V, without bias.
  Dense output{nullptr};       ///< H V to E, without bias.
  at::Tensor discount_logit;   ///< [H], discounts are its sigmoid.
  at::Tensor log_temperature;  ///< [H].
  at::Tensor omega;            ///< Random vectors, a buffer; undefined for "constant".

  std::vector<at::Tensor*> tensor_fields() override {
    return {&discount_logit, &log_temperature, &omega};
  }

 private:
  int64_t heads() const { return static_cast<int64_t>(options_.discounts.size()); }
  AssociativeMemory memory() const;
  /// Queries and keys of tokens, [B,2,H,D].
  at::Tensor addresses(const at::Tensor& tokens) const;

  TemporalMemoryOptions options_;
  ops::FeatureMapKind kind_;
};

MN_MODULE(TemporalMemory);

}  // namespace mnemosyne::nn
