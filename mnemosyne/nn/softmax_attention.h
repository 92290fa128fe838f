#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <optional>

#include "mnemosyne/core/fields.h"
#include "mnemosyne/nn/attention.h"
#include "mnemosyne/nn/layer.h"
#include "mnemosyne/nn/module_holder.h"
#include "mnemosyne/nn/position/positions.h"

namespace mnemosyne::nn {

/// Options of a SoftmaxAttention.
struct SoftmaxAttentionOptions {
  int64_t embed_dim = 64;    ///< E, divisible by the heads.
  int64_t num_heads = 4;     ///< H.
  int64_t num_kv_heads = 0;  ///< Heads of keys and values, a divisor of H; 0: H.
  bool causal = false;
  /// None, or one of the encodings; the number of heads is filled in. Damped is for causal
  /// attention, the FFT mask is for linear.
  AnyPosition position{};
  std::optional<uint64_t> seed{};  ///< Of the initial weights; none: torch's default generator.
};

/// All but the position, of which there are several kinds.
void bind(Fields& visit, SoftmaxAttentionOptions& options);

/// Dense softmax attention with the position encodings that linear attention is compared with:
/// RoPE, ALiBi, buckets of T5, and the exact masks of FourierPosition and DampedPosition as a bias.
/// Quadratic in the number of tokens. Tokens without a position have bias 0, and are not rotated.
///
///     nn::SoftmaxAttention attention({.embed_dim = 256, .causal = true,
///                                     .position = nn::RotaryPositionOptions{}});
///     at::Tensor y = attention->forward(x);   // [B,L,256]
class SoftmaxAttentionImpl : public Attention {
 public:
  explicit SoftmaxAttentionImpl(const SoftmaxAttentionOptions& options);

  at::Tensor forward(const at::Tensor& x, const AttentionInputs& inputs = {}) const override;

  at::Tensor mix_heads(const Projected& projected, const AttentionInputs& inputs) const override;

  const SoftmaxAttentionOptions& options() const { return options_; }

  /// A copy with its own parameters and draws.
  std::shared_ptr<torch::nn::Module> clone(
      const std::optional<at::Device>& device = std::nullopt) const override;

  /// What it asks about positions; its parameters are the submodule "position".
  const Position& position() const { return *position_; }

 private:
  at::Tensor bias(const at::Tensor& x, const AttentionInputs& inputs, const Places& places) const;

  SoftmaxAttentionOptions options_;
  std::shared_ptr<const Position> position_;
};

MN_MODULE(SoftmaxAttention);

}  // namespace mnemosyne::nn
