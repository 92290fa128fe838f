#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mnemosyne::ops {

/// Softmax attention within many short sequences at once, for the small networks that optimizers
/// are meta-trained on: scores scaled by 1 / sqrt(D), optionally causal.
///
/// E = sequences, T = tokens, H = heads, D = features of a head. `qkv` [E*T, 3*H*D] holds every
/// token's query, key and value side by side; returns [E*T, H*D]. float32 on the CPU goes through a
/// kernel that keeps a head's matrices in cache and saves the weights (E*H*T^2 floats) for the
/// gradient; everything else through `short_attention_reference`, as do gradients that are to be
/// differentiated again. Parallel over sequences; no result depends on the number of threads.
at::Tensor short_attention(const at::Tensor& qkv, int64_t tokens, int64_t heads, bool causal);

/// The same by matrix products of ATen: the specification.
at::Tensor short_attention_reference(const at::Tensor& qkv, int64_t tokens, int64_t heads,
                                     bool causal);

}  // namespace mnemosyne::ops
