#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "mnemosyne/core/fields.h"
#include "mnemosyne/nn/attention_options.h"
#include "mnemosyne/nn/layer.h"
#include "mnemosyne/nn/module_holder.h"
#include "mnemosyne/nn/module_tensors.h"
#include "mnemosyne/nn/performer_block.h"

namespace mnemosyne::nn {

/// Options of a CausalLM.
struct CausalLMOptions {
  int64_t vocabulary = 256;  ///< V.
  int64_t context = 128;     ///< The longest sequence.
  int64_t width = 64;        ///< E, divisible by the heads.
  int64_t heads = 4;
  int64_t layers = 2;
  int64_t hidden = 0;  ///< Of the feed-forward part; 0: four times the width.
  AttentionOptions attention{.position = "damped"};  ///< Goes on beyond the context.
  /// Of the initial weights and all random draws; none: from torch's default generator.
  std::optional<uint64_t> seed{};
};

/// All but the attention.
void bind(Fields& visit, CausalLMOptions& options);

/// A language model: token embeddings, pre-norm blocks, layer norm, a head of its own.
///
///     nn::CausalLM model({.vocabulary = 65, .context = 128});
///     at::Tensor logits = model->forward(tokens);   // int64 [B,T] to [B,T,65], T <= 128
class CausalLMImpl : public torch::nn::Module, public TensorFields {
 public:
  explicit CausalLMImpl(const CausalLMOptions& options);

  /// tokens int64 [B,T] to logits [B,T,V].
  at::Tensor forward(const at::Tensor& tokens) const;

  /// One memory per block, and how many tokens went through.
  struct Memory {
    std::vector<LinearAttentionMemory> blocks;
    int64_t length = 0;
  };

  /// The next tokens [B,T] of a sequence to their logits [B,T,V]: one at a time to generate, in
  /// constant time each. Linear attention without "fft" only (InputError).
  at::Tensor forward_segment(const at::Tensor& tokens, Memory& memory) const;

  const CausalLMOptions& options() const { return options_; }

  std::shared_ptr<torch::nn::Module> clone(
      const std::optional<at::Device>& device = std::nullopt) const override;

  at::Tensor token_embedding;     ///< [V,E].
  at::Tensor position_embedding;  ///< [context,E]; only where the position is "absolute".
  std::vector<PerformerBlock> blocks;
  Norm norm{nullptr};
  Dense head{nullptr};

  std::vector<at::Tensor*> tensor_fields() override {
    return {&token_embedding, &position_embedding};
  }

 private:
  at::Tensor embed(const at::Tensor& tokens, int64_t first) const;

  CausalLMOptions options_;
};

MN_MODULE(CausalLM);

}  // namespace mnemosyne::nn
