#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mnemosyne/core/fields.h"
#include "mnemosyne/nn/attention_options.h"
#include "mnemosyne/nn/chunk_plan.h"
#include "mnemosyne/nn/layer.h"
#include "mnemosyne/nn/module_holder.h"
#include "mnemosyne/nn/performer_block.h"

namespace mnemosyne::nn {

// T = tensors, N = tokens of all of them, M = meta-tokens of all of them, S = sets of tensors
// (networks), E = width, F = features of a token, G = features of a tensor, P = dimension of
// positions.

/// Options of a HierarchicalEncoder.
struct HierarchicalEncoderOptions {
  int64_t token_dim = 8;   ///< F.
  int64_t tensor_dim = 0;  ///< G; 0: nothing is known of a tensor beside its tokens.
  int64_t width = 16;      ///< E, divisible by the heads.
  int64_t heads = 2;
  int64_t hidden = 0;  ///< Of the feed-forward parts; 0: four times the width.
  /// Tokens of a chunk of each level within a tensor, at least one level.
  std::vector<int64_t> chunk_lengths = {16};
  /// Attention to both sides. Its position is that of tokens within their tensor: "flt",
  /// "absolute" (sinusoids, added to the tokens) or "none".
  AttentionOptions attention = small_attention();
  int64_t position_dim = 3;  ///< P.
  double extent = 16.0;      ///< Offsets within a chunk are told apart up to this.
  /// Of the initial weights and all random draws; none: from torch's default generator.
  std::optional<uint64_t> seed{};

  static AttentionOptions small_attention() {
    AttentionOptions options;
    options.linear.feature_map = "hyp+";
    options.linear.num_features = 8;
    options.fourier.num_frequencies = 8;
    return options;
  }
};

/// All but the attention.
void bind(Fields& visit, HierarchicalEncoderOptions& options);

/// Where the tokens of T tensors are, those of one after those of the other.
struct TokenPlaces {
  at::Tensor positions{};             ///< [N,P], neighbours about 1 apart; not for "none".
  std::vector<int64_t> counts{};      ///< Tokens of each tensor, [T], sum N; may be zero.
  std::vector<int64_t> set_counts{};  ///< Tensors of each set, [S], sum T; empty: one set.
};

/// Tokens of T tensors.
struct TensorTokens {
  at::Tensor tokens{};   ///< [N,F].
  at::Tensor tensors{};  ///< [T,G]; undefined where G is 0.
};

/// What follows from where tokens are.
struct EncoderPlan {
  /// A level of tokens within the tensors.
  struct Level {
    ChunkPlan chunks{};
    at::Tensor positions{};   ///< [C,L,P] in the chunks; undefined without "flt".
    PositionFactor factor{};  ///< Attention::position_factor; undefined: made in every call.
  };
  std::vector<Level> levels{};
  at::Tensor sinusoids{};       ///< [N,E], of "absolute".
  ChunkPlan meta_of_tensors{};  ///< Meta-tokens to tensors.
  ChunkPlan tensors_of_sets{};  ///< Tensors to sets.

  /// The tensors of its factors.
  std::vector<at::Tensor*> factors();
};

/// What there is on each level, from below.
struct EncodedTensors {
  /// After attention within the chunks of each level: [N,E] of the tokens, fewer of those that
  /// chunks were pooled to.
  std::vector<at::Tensor> tokens{};
  at::Tensor meta{};     ///< [M,E], what the last level within the tensors pools its chunks to.
  at::Tensor tensors{};  ///< [T,E], after attention within their set.
  at::Tensor sets{};     ///< [S,E].
};

/// The hierarchical pooling encoding (HPE) of Mnemosyne, arXiv 2302.01128: attention over space in
/// an optimizer. The tokens of a tensor, its coordinates or what is known of pieces of it, are cut
/// into chunks; a bi-directional Performer encodes each chunk; the chunk is pooled to a token of
/// the next level; and so on. Where the method stops at meta-tokens, a last level encodes the
/// tensors of a network together and pools them to one token, which is what can tell networks
/// apart.
///
///     nn::HierarchicalEncoder encoder({.token_dim = 6, .chunk_lengths = {64, 16}});
///     const nn::EncoderPlan plan = encoder->plan({positions, {300, 7}}, at::kCPU);
///     const nn::EncodedTensors up = encoder->forward({tokens}, plan);
///     at::Tensor context = encoder->spread(up, plan);   // [307,E]: to each, what all levels know
///
/// A plan serves all calls with tokens in the same places, whatever the weights; with `add_factors`
/// as long as these do not change.
///
/// Tensors of any sizes, none included. Padding is masked. A permutation of the tensors permutes
/// what comes out, moving all positions of "flt" changes nothing. A chunk stands at the mean of its
/// tokens' positions, in units of chunks.
/// Errors: options (InputError), shapes (c10::Error).
class HierarchicalEncoderImpl : public torch::nn::Module {
 public:
  explicit HierarchicalEncoderImpl(const HierarchicalEncoderOptions& options);

  EncoderPlan plan(const TokenPlaces& places, at::Device device) const;

  /// Adds to a plan what positions and the present weights give, which `forward` then need not
  /// make.
  void add_factors(EncoderPlan& plan) const;

  EncodedTensors forward(const TensorTokens& inputs, const EncoderPlan& plan) const;

  /// The sum of what the levels have for a token, [N,E]: its own, its chunks', its tensor's, its
  /// set's. Any of them may have been changed since `forward`.
  at::Tensor spread(const EncodedTensors& encoded, const EncoderPlan& plan) const;

  const HierarchicalEncoderOptions& options() const { return options_; }

  std::shared_ptr<torch::nn::Module> clone(
      const std::optional<at::Device>& device = std::nullopt) const override;

  Dense embed{nullptr};                ///< F to E.
  Dense embed_tensor{nullptr};         ///< G to E; only where G is not 0.
  std::vector<PerformerBlock> blocks;  ///< "block0", ...: one a level, the last over the tensors.

 private:
  void check(const TokenPlaces& places) const;
  void check(const TensorTokens& inputs, const EncoderPlan& plan) const;

  HierarchicalEncoderOptions options_;
};

MN_MODULE(HierarchicalEncoder);

/// Where a token is as waves of several lengths, [N,P] to [N,E], as in "Attention is all you need"
/// with `extent` for the longest wave's half; each axis has its share of the width.
at::Tensor sinusoids(const at::Tensor& positions, int64_t width, double extent);

}  // namespace mnemosyne::nn
