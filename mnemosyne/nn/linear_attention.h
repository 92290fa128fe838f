#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "mnemosyne/core/fields.h"
#include "mnemosyne/nn/attention.h"
#include "mnemosyne/nn/layer.h"
#include "mnemosyne/nn/module_holder.h"
#include "mnemosyne/nn/position/damped_position.h"
#include "mnemosyne/nn/position/fourier_position.h"
#include "mnemosyne/nn/position/placed_tokens.h"
#include "mnemosyne/nn/position/rotary_position.h"
#include "mnemosyne/ops/linear_attention/linear_attention.h"

namespace mnemosyne::nn {

/// The exact factor exp(f) of every pair of tokens on a regular grid, by fast Fourier transforms
/// (Luo et al. 2021, arXiv 2106.12566): the baseline of FourierPosition, with the same f. Up to 256
/// tokens the matrix of the mask is made instead, which is the same and faster.
struct FftMaskOptions {
  FourierPositionOptions mask{};  ///< Of f; its position_dim is 1 or 2.
  int64_t columns = 0;            ///< In two dimensions: how many tokens a row of the grid has.
};

void bind(Fields& visit, FftMaskOptions& options);

/// Options of a LinearAttention.
struct LinearAttentionOptions {
  int64_t embed_dim = 64;            ///< E, divisible by the heads.
  int64_t num_heads = 4;             ///< H.
  int64_t num_kv_heads = 0;          ///< Heads of keys and values, a divisor of H; 0: H.
  std::string feature_map = "relu";  ///< "favor+", "hyp+", "trig", "relu" or "elu+1".
  int64_t num_features = 64;         ///< M; "elu+1" has as many as a head has dimensions.
  bool causal = false;
  /// None, or one of the encodings; the number of heads is filled in. Damped is for causal
  /// attention.
  std::variant<std::monostate, RotaryPositionOptions, FftMaskOptions, FourierPositionOptions,
               DampedPositionOptions>
      position{};
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

/// What causal attention remembers between segments and in decoding: a constant size.
struct LinearAttentionMemory {
  ops::LinearAttentionState sums{};
  /// [1] or [B,1], float64: the last position that counted, of DampedPosition; minus infinity in
  /// rows without one.
  at::Tensor last{};
  int64_t length = 0;  ///< Tokens so far, where default positions go on.
  at::Tensor
      span{};  ///< [2,P] or [B,2,P], float64: where keys were, of FourierPosition (`span_of`).
};

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
class LinearAttentionImpl : public Attention {
 public:
  explicit LinearAttentionImpl(const LinearAttentionOptions& options);

  at::Tensor forward(const at::Tensor& x, const AttentionInputs& inputs = {}) const override;

  at::Tensor mix_heads(const Projected& projected, const AttentionInputs& inputs) const override;

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

  at::Tensor omega;                  ///< Random vectors, a buffer; undefined for "elu+1".
  FourierPosition fourier{nullptr};  ///< Of FourierPosition and of the FFT mask.
  DampedPosition damped{nullptr};

 private:
  struct Tokens;
  ops::PositionFeatures features(const Tokens& tokens, LinearAttentionMemory* memory) const;
  at::Tensor attend(const Projected& projected, const AttentionInputs& inputs,
                    LinearAttentionMemory* memory) const;
  at::Tensor mix(Tokens& tokens, LinearAttentionMemory* memory) const;
  at::Tensor multiply(const Tokens& tokens, const OrderedLine& line, ops::LinearAttentionInputs& in,
                      const ops::LinearAttentionOptions& call, LinearAttentionMemory* memory) const;
  bool is_exact(const Tokens& tokens) const;
  bool is_short(const Tokens& tokens) const;
  at::Tensor factor_of_pairs(const Tokens& tokens) const;
  void concatenate(Tokens& tokens, ops::LinearAttentionInputs& in,
                   ops::LinearAttentionOptions& call, LinearAttentionMemory* memory) const;

  LinearAttentionOptions options_;
  ops::FeatureMapKind kind_;
};

MN_MODULE(LinearAttention);

}  // namespace mnemosyne::nn
