#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>

#include "mnemosyne/nn/attention.h"
#include "mnemosyne/nn/linear_attention_memory.h"
#include "mnemosyne/nn/position/placed_tokens.h"
#include "mnemosyne/nn/position/position_factor.h"
#include "mnemosyne/ops/linear_attention/linear_attention.h"

namespace mnemosyne::nn {

struct AttentionOptions;
struct AttentionSite;

// B = batch, H = heads, L = queries, S = keys, d = depth of a head, P = dimension of positions, N =
// features of a position.

/// Where the tokens of a call are.
struct Places {
  PlacedTokens queries{};
  PlacedTokens context{};  ///< Of the keys, where they are not the queries' tokens.
  bool cross = false;      ///< Whether they are not.
  at::Tensor last{};       ///< Of `LinearAttentionMemory`, after these tokens.

  const PlacedTokens& keys() const { return cross ? context : queries; }
  bool all_placed() const;
};

/// A call of linear attention that is being put together.
struct LinearCall {
  ops::LinearAttentionInputs inputs{};
  ops::LinearAttentionOptions options{};
};

/// Whether linear attention may go by the matrix of all factors, [H,L,S].
enum class PairMatrix { kNever, kWhereCheaper, kAlways };

/// What a position encoding gives to attention. Each stands in a file of its own and overrides what
/// it has; attention asks, whatever the encoding. Everything here is differentiable in positions
/// and parameters, and reads no values but in `check`.
class Position {
 public:
  virtual ~Position() = default;

  /// The module with the parameters, which attention registers as "position"; null: none.
  virtual std::shared_ptr<torch::nn::Module> module() const { return nullptr; }

  /// Where the tokens of a call are, as this encoding takes them: see AttentionInputs. The default:
  /// tokens with positions [L,P] or [B,L,P], and those of the context if there is one.
  virtual Places place(const Projected& tokens, const AttentionInputs& inputs,
                       const LinearAttentionMemory* memory) const;

  /// Refuses places by their values (c10::Error), such as tokens that go back in time.
  virtual void check(const Places& places) const;

  /// Queries or keys [B,H,L,d] turned by where they are.
  virtual at::Tensor turn(const at::Tensor& x, const PlacedTokens& places) const;

  // Of softmax attention.

  virtual bool has_bias() const { return false; }

  /// What is added to the scores at offsets [..., P], query minus key: [H, ...].
  virtual at::Tensor bias(const at::Tensor& offsets) const;

  // Of linear attention, in the order in which it asks.

  /// InputError where attention with it cannot go segment by segment.
  virtual void check_segments() const {}

  /// Features that stand beside query and key within the feature map, N; their random vectors are
  /// that much longer.
  virtual int64_t num_beside() const { return 0; }

  /// Output [B,H,L,d] of an algorithm of its own, or undefined.
  virtual at::Tensor attend(const Places& places, const LinearCall& call) const;

  /// Changes what the feature map takes; the default turns queries and keys.
  virtual void encode(const Places& places, LinearAttentionMemory* memory, LinearCall& call) const;

  /// Features of the factor that weights are multiplied by, at most; 0: none.
  virtual int64_t rank() const { return 0; }

  virtual PairMatrix pair_matrix(const Places& places) const;

  /// The factor of every query and key, [H,L,S] or [B,H,L,S].
  virtual at::Tensor factor_of_pairs(const Places& places) const;

  /// The same as features; the memory moves on.
  virtual PositionFactor factor(const Places& places, LinearAttentionMemory* memory) const;
};

/// Without positions: "none", and "absolute", which models add to their embeddings.
class NoPosition final : public Position {
 public:
  Places place(const Projected& tokens, const AttentionInputs& inputs,
               const LinearAttentionMemory* memory) const override;
};

/// What a position is told about the attention that it is made for.
struct PositionSite {
  bool causal = false;
  int64_t num_heads = 1;
  int64_t depth = 1;         ///< d.
  int64_t exact_length = 0;  ///< See LinearAttentionOptions.
  uint64_t seed = 0;         ///< Of the attention.
};

/// Options with the heads of the attention, and a seed beside those of its projections.
template <typename Options>
Options for_heads(Options options, const PositionSite& site) {
  constexpr uint64_t kPositionSeed = 5;
  options.num_heads = site.num_heads;
  options.seed = part_seed(site.seed, kPositionSeed) ^ options.seed.value_or(0);
  return options;
}

/// Query minus key of all pairs, [L,S,P] or [B,L,S,P]; tokens that are nowhere stand at zero.
at::Tensor offsets_of_pairs(const Places& places);

/// `values` [H,L,S] or [H,B,L,S] as [H,L,S] or [B,H,L,S], with `unplaced` where a token of the pair
/// is nowhere.
at::Tensor with_unplaced_pairs(const at::Tensor& values, const Places& places, double unplaced);

}  // namespace mnemosyne::nn
