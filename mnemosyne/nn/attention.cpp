#include "mnemosyne/nn/attention.h"

namespace mnemosyne::nn {

Heads Attention::add_projections(int64_t embed_dim, int64_t num_heads, int64_t num_kv_heads,
                                 uint64_t seed) {
  check_heads(embed_dim, num_heads, num_kv_heads);
  const Heads heads(embed_dim, num_heads, num_kv_heads);
  const auto projection = [&](const char* name, int64_t in, int64_t out, uint64_t part) {
    return register_module(name, Dense(in, out, /*with_bias=*/part == 3, part_seed(seed, part)));
  };
  query = projection("query", embed_dim, heads.queries * heads.depth, 0);
  key = projection("key", embed_dim, heads.keys * heads.depth, 1);
  value = projection("value", embed_dim, heads.keys * heads.depth, 2);
  output = projection("output", heads.queries * heads.depth, embed_dim, 3);
  return heads;
}

Projected Attention::project(const at::Tensor& x, const AttentionInputs& inputs, const Heads& heads,
                             bool causal) const {
  const at::Tensor& source = inputs.context.defined() ? inputs.context : x;
  heads.check(x, source, causal);
  return {query->forward(x), key->forward(source), value->forward(source)};
}

}  // namespace mnemosyne::nn
