#include "mnemosyne/nn/causal_lm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/embedding.h>

#include <algorithm>
#include <string>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/copy_module.h"

namespace mnemosyne::nn {
namespace {

constexpr uint64_t kTokenSeed = 1000, kPositionSeed = 1001, kHeadSeed = 1002;

void check(const CausalLMOptions& o) {
  if (o.vocabulary < 1 || o.context < 1 || o.layers < 1) {
    throw InputError("[causal_lm] expected a positive vocabulary, context and layers, got " +
                     std::to_string(o.vocabulary) + ", " + std::to_string(o.context) + " and " +
                     std::to_string(o.layers));
  }
}

AttentionSite site_of(const CausalLMOptions& o, uint64_t layer) {
  const double context = static_cast<double>(o.context);
  return {.embed_dim = o.width,
          .num_heads = o.heads,
          .causal = true,
          .max_width = std::max(context / 4.0, 1.0),
          .extent = context,
          .grid = {o.context},
          .seed = part_seed(*o.seed, layer)};
}

}  // namespace

void bind(Fields& visit, CausalLMOptions& o) {
  visit("vocabulary", o.vocabulary);
  visit("context", o.context);
  visit("width", o.width);
  visit("heads", o.heads);
  visit("layers", o.layers);
  visit("hidden", o.hidden);
  visit("seed", o.seed);
}

CausalLMImpl::CausalLMImpl(const CausalLMOptions& options)
    : torch::nn::Module("CausalLM"), options_(with_seed(options)) {
  check(options);
  validate(options.attention, site_of(options_, 0));
  const auto table = [&](const char* name, int64_t rows, uint64_t part) {
    return register_parameter(name, seeded_normal({rows, options.width}, kEmbeddingDeviation,
                                                  part_seed(*options_.seed, part)));
  };
  token_embedding = table("token_embedding", options.vocabulary, kTokenSeed);
  if (options.attention.position == "absolute") {
    position_embedding = table("position_embedding", options.context, kPositionSeed);
  }
  blocks = register_blocks(*this, options.layers, options.attention, options.hidden,
                           [&](uint64_t layer) { return site_of(options_, layer); });
  norm = register_module("norm", Norm(options.width));
  head = register_module(
      "head", Dense(options.width, options.vocabulary, true, part_seed(*options_.seed, kHeadSeed)));
}

at::Tensor CausalLMImpl::embed(const at::Tensor& tokens, int64_t first) const {
  TORCH_CHECK(tokens.dim() == 2 && tokens.scalar_type() == at::kLong && tokens.size(1) > 0,
              "[causal_lm] expected tokens int64 [B,T] with T > 0, got ", tokens.scalar_type(), " ",
              tokens.sizes());
  const std::string& position = options_.attention.position;
  const bool limited = position == "absolute" || position == "flt";
  const int64_t last = first + tokens.size(1);
  TORCH_CHECK(last <= options_.context || (first > 0 && !limited), "[causal_lm] expected at most ",
              options_.context, " tokens, got ", last);
  const at::Tensor x = at::embedding(token_embedding, tokens);
  if (!position_embedding.defined()) return x;
  return x + position_embedding.narrow(0, first, tokens.size(1));
}

at::Tensor CausalLMImpl::forward(const at::Tensor& tokens) const {
  at::Tensor x = embed(tokens, 0);
  for (const PerformerBlock& block : blocks) x = block->forward(x);
  return head->forward(norm->forward(x));
}

at::Tensor CausalLMImpl::forward_segment(const at::Tensor& tokens, Memory& memory) const {
  memory.blocks.resize(blocks.size());
  at::Tensor x = embed(tokens, memory.length);
  for (size_t layer = 0; layer < blocks.size(); ++layer) {
    x = blocks[layer]->forward_segment(x, memory.blocks[layer]);
  }
  memory.length += tokens.size(1);
  return head->forward(norm->forward(x));
}

std::shared_ptr<torch::nn::Module> CausalLMImpl::clone(
    const std::optional<at::Device>& device) const {
  const auto copy = std::make_shared<CausalLMImpl>(options_);
  copy_module(*this, *copy, device);
  return copy;
}

}  // namespace mnemosyne::nn
