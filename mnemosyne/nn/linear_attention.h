#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "mnemosyne/core/fields.h"
#include "mnemosyne/nn/attention.h"
#include "mnemosyne/nn/layer.h"
#include "mnemosyne/nn/linear_attention_memory.h"
#include "mnemosyne/nn/module_holder.h"
#include "mnemosyne/nn/module_tensors.h"
#include "mnemosyne/nn/position/positions.h"
#include "mnemosyne/ops/linear_attention/linear_attention.h"

namespace mnemosyne::nn {

/// Options of a LinearAttention.
struct LinearAttentionOptions {
  int64_t embed_dim = 64;            ///< E, divisible by the heads.
  int64_t num_heads = 4;             ///< H.
  int64_t num_kv_heads = 0;          ///< Heads of keys and values, a divisor of H; 0: H.
  std::string feature_map = "relu";  ///< "favor+", "hyp+", "trig", "relu" or "elu+1".
  int64_t num_features = 64;         ///< M; "elu+1" has as many as a head has dimensions.
  bool causal = false;
  /// None, or one of the encodings; the number of heads is filled in. Damped is for causal
  /// attention, ALiBi and the buckets of T5 are for softmax.
  AnyPosition position{};
  /// Up to so many tokens the factor of FourierPosition (multiplicative) is that of `factor`,
  /// exactly, by the L x S matrix; 0: of `features`, whatever the length. For inputs that are
  /// always small, such as molecules: in space a sharp mask takes more features than they have
  /// tokens. Attention to both sides with "relu" or "elu+1".
  int64_t exact_length = 0;
  /// Of the initial weights and the random features; none: from torch's default generator.
  std::optional<uint64_t> seed{};
};

/// All but the position, of which there are several kinds.
void bind(Fields& visit, LinearAttentionOptions& options);

/// Those that do not depend on where attention stands, but for `num_kv_heads`.
void bind_choice(Fields& visit, LinearAttentionOptions& options);

/// Multi-head attention in time and memory linear in the number of tokens that knows where tokens
/// are (FourierLearner-Transformers, arXiv 2302.01925): projections, random features, a learned
/// relative position, and `ops::linear_attention`.
///
///     nn::LinearAttention attention({.embed_dim = 256, .num_heads = 4, .causal = true,
///                                    .position = nn::DampedPositionOptions{}});
///     at::Tensor y = attention->forward(x);                    // [B,L,256]
///     nn::LinearAttentionMemory memory;                        // and token by token, the same:
///     at::Tensor y0 = attention->step(x.select(1, 0), memory); // [B,256]
///
/// Factors of the weights (multiplicative, damped, FFT) depend on offsets alone, exactly. What goes
/// through the feature map does so in expectation over the random features: concatenated positions,
/// and RoPE, which turns queries and keys before the map, as Performers do, so that weights stay
/// positive.
/// Differentiable in positions, too, any number of times (float32: see `ops::linear_attention`).
/// Padding does not count: where it stands is neither in the order of damped tokens nor within the
/// extent of a FourierPosition.
/// Errors: options (InputError), shapes, damped positions that go down, offsets beyond the extent
/// (c10::Error).
class LinearAttentionImpl : public Attention, public TensorFields {
 public:
  explicit LinearAttentionImpl(const LinearAttentionOptions& options);

  at::Tensor forward(const at::Tensor& x, const AttentionInputs& inputs = {}) const override;

  at::Tensor mix_heads(const Projected& projected, const AttentionInputs& inputs) const override;

  PositionFactor position_factor(const AttentionInputs& inputs) const override;

  /// `mix_heads` of the next segment of a causal sequence.
  at::Tensor mix_heads(const Projected& projected, const AttentionInputs& inputs,
                       LinearAttentionMemory& memory) const;

  /// The next segment of a causal sequence, x [B,L,E]: the same as the rows of the one forward pass
  /// over the whole of it. `memory` moves on; gradients flow through it. InputError for attention
  /// that is not causal, for the FFT mask, which has no state, and for a FourierPosition whose
  /// waves follow the input (no extent).
  at::Tensor forward_segment(const at::Tensor& x, LinearAttentionMemory& memory,
                             const AttentionInputs& inputs = {}) const;

  /// One token x [B,E] to [B,E], in time that does not depend on how many came before. `position`
  /// [P] or [B,P]; default: the next integer.
  at::Tensor step(const at::Tensor& x, LinearAttentionMemory& memory,
                  const at::Tensor& position = {}) const;

  const LinearAttentionOptions& options() const { return options_; }

  /// A copy with its own parameters and draws.
  std::shared_ptr<torch::nn::Module> clone(
      const std::optional<at::Device>& device = std::nullopt) const override;

  /// What it asks about positions; its parameters are the submodule "position".
  const Position& position() const { return *position_; }

  at::Tensor omega;  ///< Random vectors, a buffer; undefined for "elu+1".

  std::vector<at::Tensor*> tensor_fields() override { return {&omega}; }

 private:
  at::Tensor attend(const Projected& projected, const AttentionInputs& inputs,
                    LinearAttentionMemory* memory) const;
  at::Tensor mix(const Places& places, LinearAttentionMemory* memory, LinearCall& call) const;
  bool takes_pairs(const Places& places, const LinearCall& call) const;

  LinearAttentionOptions options_;
  ops::FeatureMapKind kind_;
  std::shared_ptr<const Position> position_;
};

MN_MODULE(LinearAttention);

}  // namespace mnemosyne::nn
