#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "mnemosyne/tasks/stacked/param_list.h"

namespace mnemosyne::tasks {

// P = members, N = rows, B = batch, T = tokens, F = features, C = channels. Every layer runs the P
// members in one call, never mixes them, and works in any floating dtype.

/// x W^T + b per member: x [P,N,in], or [N,in] when the members share it (then one matrix product
/// with all weights side by side), weight [P,out,in], bias [P,out]. Returns [P,N,out], not always
/// contiguous.
at::Tensor stacked_linear(const at::Tensor& x, const Affine& layer);

/// Layer norm over F with every member's own weight and bias [P,F]: x [P,N,F], epsilon 1e-5.
at::Tensor stacked_layer_norm(const at::Tensor& x, const Affine& layer);

/// Batch norm over the N rows with every member's own weight and bias [P,F]: x [P,N,F], epsilon
/// 1e-5. Mean and variance are those of the rows at hand, in training and in validation: no member
/// keeps running averages.
at::Tensor stacked_batch_norm(const at::Tensor& x, const Affine& layer);

/// The same over B, H and W of what `stacked_conv2d` gives: x [B,P*C,H,W], weight and bias [P,C].
at::Tensor stacked_batch_norm2d(const at::Tensor& x, const Affine& layer);

/// Rows of every member's table [P,V,F] for the shared integers `indices` [N]: [P,N,F].
at::Tensor stacked_embedding(const at::Tensor& indices, const at::Tensor& table);

/// Convolution with the members side by side in the channels: x [B,P*C,H,W], or [B,C,H,W] when the
/// members share it, weight [P,O,C,k,k], bias [P,O] or undefined. Returns [B,P*O,H',W'].
at::Tensor stacked_conv2d(const at::Tensor& x, bool shared, const Affine& layer, int64_t stride,
                          int64_t padding);

/// [B,P*C,H,W] to rows [P,B,C*H*W], in torch's order of flattening.
at::Tensor stacked_flatten(const at::Tensor& x, int64_t members);

/// Squares of size x size pixels as rows: images [B,C,H,W] to [B * H/size * W/size, C*size*size].
at::Tensor image_patches(const at::Tensor& images, int64_t size);

/// Multi-head attention over the T tokens of every example: projected queries, keys and values side
/// by side in qkv [P,B*T,3*F], each F = heads * D. Returns [P,B*T,F].
at::Tensor stacked_attention(const at::Tensor& qkv, int64_t tokens, int64_t heads, bool causal);

/// Mean cross entropy of every member: logits [P,N,C], targets [N] int64. Returns [P].
at::Tensor stacked_cross_entropy(const at::Tensor& logits, const at::Tensor& targets);

/// Mean squared error of every member over rows and features: predictions [P,N,F], targets [N,F].
/// Returns [P].
at::Tensor stacked_squared_error(const at::Tensor& predictions, const at::Tensor& targets);

/// Fraction of rows whose largest logit is the target's: [P].
at::Tensor stacked_accuracy(const at::Tensor& logits, const at::Tensor& targets);

enum class Activation { kRelu, kTanh, kGelu, kSigmoid, kSine };

enum class Norm { kNone, kLayer, kBatch };

/// x [P,N,F] itself, or its layer or batch norm.
at::Tensor normalize(const at::Tensor& x, Norm norm, const Affine& layer);

at::Tensor activate(const at::Tensor& x, Activation activation);

}  // namespace mnemosyne::tasks
