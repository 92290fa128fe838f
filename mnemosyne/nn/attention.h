#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>

#include "mnemosyne/nn/heads.h"
#include "mnemosyne/nn/layer.h"
#include "mnemosyne/nn/position/position_factor.h"

namespace mnemosyne::nn {

// B = batch, L = tokens, S = tokens attended to, E = width, P = dimension of positions, H = heads.

/// What attention is told about its tokens. Everything may be undefined.
struct AttentionInputs {
  /// [L,P] or [B,L,P]; undefined: 0 ... L - 1 where P = 1. Causal attention takes them in order.
  at::Tensor positions{};
  bool on_line = false;           ///< The positions given are those of a line, one after the other.
  at::Tensor has_position{};      ///< bool [L] or [B,L]: false for class tokens; default all.
  at::Tensor key_padding_mask{};  ///< bool [B,S]: true where a key takes part; default all.
  at::Tensor context{};           ///< [B,S,E] to attend to; default the tokens themselves.
  at::Tensor context_positions{};     ///< As `positions`, of the context.
  at::Tensor context_has_position{};  ///< As `has_position`, of the context.
  /// `Attention::position_factor` of these positions, where many calls have the same ones; they are
  /// not looked at then.
  PositionFactor factor{};
};

/// Multi-head attention with some position encoding, as a model sees it.
class Attention : public torch::nn::Module {
 public:
  using torch::nn::Module::Module;

  /// x [B,L,E] to [B,L,E]: `mix_heads` between the projections.
  virtual at::Tensor forward(const at::Tensor& x, const AttentionInputs& inputs) const = 0;

  /// What attention does between its projections, [B,L,H d]. Of a context it only matters here that
  /// there is one, and its positions. Under autocast in its dtype, but for what positions give.
  virtual at::Tensor mix_heads(const Projected& projected, const AttentionInputs& inputs) const = 0;

  /// What positions [B,L,P] give to every call over the same tokens: see AttentionInputs. Undefined
  /// where they give something else, or nothing. Not of causal attention, nor of a context.
  virtual PositionFactor position_factor(const AttentionInputs& /*inputs*/) const { return {}; }

  Dense query{nullptr}, key{nullptr}, value{nullptr};  ///< Without bias.
  Dense output{nullptr};

 protected:
  /// The projections of x, or of x and its context; refuses what is not [B,L,E], and a context in
  /// causal attention.
  Projected project(const at::Tensor& x, const AttentionInputs& inputs, const Heads& heads,
                    bool causal) const;

  /// Registers the projections, from seeds 0 to 3 of `seed`, so that all kinds start alike.
  /// InputError where the heads do not fit the width.
  Heads add_projections(int64_t embed_dim, int64_t num_heads, int64_t num_kv_heads, uint64_t seed);
};

}  // namespace mnemosyne::nn
