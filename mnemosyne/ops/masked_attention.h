#pragma once

#include <ATen/core/Tensor.h>

namespace mnemosyne::ops {

/// Dense attention softmax(q k^T / sqrt(D) + bias) v: what every linear form with a position mask
/// is measured against. For small L: it makes the L x S matrix.
///
/// B = batch, H = heads, L = queries, S = keys, D, E = sizes of keys and values. `query` [B, H, L,
/// D], `key` [B, H, S, D], `value` [B, H, S, E]; `bias` broadcasts to [B, H, L, S] or is undefined.
/// `causal` hides keys after the query's index (L = S). Returns [B, H, L, E].
at::Tensor softmax_attention_with_bias(const at::Tensor& query, const at::Tensor& key,
                                       const at::Tensor& value, const at::Tensor& bias,
                                       bool causal);

/// Linear attention with a mask that multiplies, dense:
/// out_i = sum_j factor_ij (q_i.k_j) v_j / sum_j factor_ij (q_i.k_j), on features [B, H, ., M].
/// `factor` broadcasts to [B, H, L, S].
at::Tensor masked_linear_attention_reference(const at::Tensor& query, const at::Tensor& key,
                                             const at::Tensor& value, const at::Tensor& factor);

/// The same for tokens on a regular grid in O(M E L log L), the mask applied by fast Fourier
/// transforms (Luo et al. 2021, arXiv 2106.12566): the baseline that learned positions replace,
/// which needs the grid.
///
/// G1 (x G2) = grid, L = G1 (x G2) with the last axis fastest. `query`, `key` features [B, H, L,
/// M], `value` [B, H, L, E]; `factor` [H, 2 G1 - 1] or [H, 2 G1 - 1, 2 G2 - 1] holds the weight at
/// offsets (query minus key) 1 - G ... G - 1; zeros at negative offsets make it causal. Returns
/// [B, H, L, E]. Differentiable.
///
///     at::Tensor lags = at::arange(1 - length, length).unsqueeze(-1);
///     ops::fft_masked_attention(q, k, v, position->mask(lags).exp());
at::Tensor fft_masked_attention(const at::Tensor& query, const at::Tensor& key,
                                const at::Tensor& value, const at::Tensor& factor);

}  // namespace mnemosyne::ops
