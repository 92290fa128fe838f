#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mnemosyne/nn/attention_options.h"
#include "mnemosyne/nn/layer.h"
#include "mnemosyne/nn/linear_attention.h"
#include "mnemosyne/nn/module_holder.h"

namespace mnemosyne::nn {

/// Options of a PerformerBlock.
struct PerformerBlockOptions {
  AttentionSite site{};
  AttentionOptions attention{};
  int64_t hidden = 0;  ///< Of the feed-forward part; 0: four times the width.
};

/// A pre-norm Transformer block: x + attention(norm(x)), then x + W2 gelu(W1 norm(x)).
class PerformerBlockImpl : public torch::nn::Module {
 public:
  explicit PerformerBlockImpl(const PerformerBlockOptions& options);

  /// x [B,L,E] to [B,L,E].
  at::Tensor forward(const at::Tensor& x, const AttentionInputs& inputs = {}) const;

  /// The next segment x [B,L,E] of a causal sequence. InputError for softmax attention.
  at::Tensor forward_segment(const at::Tensor& x, LinearAttentionMemory& memory) const;

  const PerformerBlockOptions& options() const { return options_; }

  std::shared_ptr<torch::nn::Module> clone(
      const std::optional<at::Device>& device = std::nullopt) const override;

  Norm norm1{nullptr}, norm2{nullptr};
  std::shared_ptr<Attention> attention;
  Dense up{nullptr}, down{nullptr};

 private:
  at::Tensor feed_forward(const at::Tensor& x) const;

  PerformerBlockOptions options_;
};

MN_MODULE(PerformerBlock);

/// Deviation of what a model's tokens and places start from.
inline constexpr double kEmbeddingDeviation = 0.5;

/// The blocks of a model, registered as "block0", "block1", ...; `site_of(layer)` is where the
/// attention of a layer stands, with its own seed.
template <typename SiteOf>
std::vector<PerformerBlock> register_blocks(torch::nn::Module& model, int64_t layers,
                                            const AttentionOptions& attention, int64_t hidden,
                                            const SiteOf& site_of) {
  std::vector<PerformerBlock> blocks;
  for (int64_t layer = 0; layer < layers; ++layer) {
    const PerformerBlockOptions options{
        .site = site_of(static_cast<uint64_t>(layer)), .attention = attention, .hidden = hidden};
    blocks.push_back(
        model.register_module("block" + std::to_string(layer), PerformerBlock(options)));
  }
  return blocks;
}

}  // namespace mnemosyne::nn
