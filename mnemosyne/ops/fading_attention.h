#pragma once

#include "mnemosyne/ops/linear_attention.h"

namespace mnemosyne::ops {

/// Causal linear attention whose position factor fades: `linear_attention` with weights
///
///     phi(q_i).phi(k_j) * sum_r p_ir s_jr exp(-decay_r (x_i - x_j)),   j <= i
///
/// exact and stable for any length: tokens go through in segments that are short enough for the
/// fading to be put into the factors, and the state moves from one to the next. Memory of the
/// backward pass is one state per segment.
///
/// H, L, R as in linear_attention.h. `inputs` hold p and s; `decay` [H,R] is not negative;
/// `positions` [H,L] or [1,L], float64, do not go down along a row. `origin` [H] or [1] is the
/// position that the sums of the state count from, undefined without a state; it becomes that of
/// the state in the result.
LinearAttentionResult fading_linear_attention(const LinearAttentionInputs& inputs,
                                              const LinearAttentionOptions& options,
                                              const at::Tensor& decay, const at::Tensor& positions,
                                              at::Tensor& origin);

}  // namespace mnemosyne::ops
