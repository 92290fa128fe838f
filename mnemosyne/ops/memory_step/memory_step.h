#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "mnemosyne/ops/feature_map.h"

namespace mnemosyne::ops {

/// One step of the coordinate-wise Mnemosyne: every coordinate of a tensor is a token with its own
/// compact associative memory over time (the coordinate-wise variant of arXiv 2302.01128; the
/// details below are ours).
///
/// Letters: T tensors, N coordinates of one tensor, L layers, H heads, R features, D size of a key,
/// F inputs of the key and query maps, V = 2 values, C = V + 1 channels of the memory, Z decoder
/// inputs, U hidden units of the decoder. squash(x) = x / sqrt(1 + x^2).
///
/// For one coordinate with gradient g and parameter p; per tensor grad_scale, param_scale, eps,
/// step and hidden_bias:
///
///  1. g is clipped to +-1e17, so that discounted sums of g^2 stay finite in float32.
///  2. Token: x = [squash(a), max(log(|a| + 1e-9) / 10, -1) (at most 1), squash(b), 1], F = 4, with
///     a = grad_scale g and b = param_scale p.
///  3. Per head h: key k = address(key_h x) and query q = address(query_h x), where
///     address(y) = radius_h y / sqrt(1 + |y|^2), so that |k|, |q| < radius_h.
///  4. Values v = (g, g^2, 1): raw, so that with phi = 1 a head reads the moments of Adam; the last
///  channel
///     accumulates the normaliser Psi.
///  5. Decay and write: S <- decay_h S + phi(k) v^T, [R, C].
///  6. Read: n = phi(q)^T S [C]; o_c = n_c / max(n_C, floor), floor = .1 for kTrig, whose
///  normaliser can
///     vanish, and 1e-12 for the others. m_h = o_1 and s_h = sqrt(max(o_2, 1e-36)).
///  7. With base head a (momentum) and b (variance): i = 1 / (s_b + eps), u_h = m_h i, and the
///  decoder's
///     inputs z = [token without the 1, squash(g i), squash(u_h) for all h, (s_h - s_b) / (s_h +
///     s_b) for all h]. The second layer's token is [squash(u_h), (s_h - s_b) / (s_h + s_b), 1], F
///     = 2H + 1, and its values are value x (V of them) and 1; its reads, squashed, are appended to
///     z and are with 1 the token of the third, and so on. So Z = 4 + 2H + (L - 1) H V.
///  8. Decode: y = output_weight relu(hidden_weight z + hidden_bias) + output_bias, [2];
///     direction = u_a + direction_bound squash(y_1); magnitude = exp(magnitude_bound squash(y_2)).
///  9. update = step direction magnitude, to be subtracted from p.
///
/// With y = 0, phi constant and decays beta_1 and beta_2 the update is Adam's.
///
/// Gradients flow to the weights, hidden_bias, step and the memories; grad and param are constants.
struct MemoryStepOptions {
  FeatureMapKind feature_map = FeatureMapKind::kConstant;
  int64_t momentum_head = 0;     ///< Head whose mean gradient is the base direction.
  int64_t variance_head = 1;     ///< Head whose mean squared gradient normalises it.
  double direction_bound = 1.0;  ///< Largest correction of the direction, in units of Adam's.
  double magnitude_bound = 2.0;  ///< Largest change of the log of the step.
};

/// Weights of one layer. For the constant feature map key, query and radius are undefined.
struct MemoryLayerWeights {
  at::Tensor decay;   ///< [H], each in (0, 1).
  at::Tensor key;     ///< [H, D, F]
  at::Tensor query;   ///< [H, D, F]
  at::Tensor radius;  ///< [H]
  at::Tensor value;   ///< [V, F], of layers after the first only.
};

struct MemoryStepWeights {
  std::vector<MemoryLayerWeights> layers;  ///< L
  at::Tensor omega;          ///< [M, D], a constant; undefined for the constant feature map.
  at::Tensor hidden_weight;  ///< [U, Z]
  at::Tensor output_weight;  ///< [2, U]
  at::Tensor output_bias;    ///< [2]
};

/// The tensors of a step, flat, and what belongs to each as a whole. All have one dtype and device.
struct MemoryStepInputs {
  std::vector<at::Tensor> grads;     ///< T of [N]
  std::vector<at::Tensor> params;    ///< T of [N]
  std::vector<at::Tensor> memories;  ///< T of [L, H, R, C, N], contiguous
  at::Tensor hidden_bias;            ///< [T, U]
  at::Tensor step;                   ///< [T]
  at::Tensor grad_scale;             ///< [T], about 1 / RMS(grad)
  at::Tensor param_scale;            ///< [T], about 1 / RMS(param)
  at::Tensor eps;                    ///< [T], positive
};

struct MemoryStepResult {
  std::vector<at::Tensor> updates;   ///< T of [N]
  std::vector<at::Tensor> memories;  ///< T of [L, H, R, C, N]
};

/// Values that a memory stores besides the constant 1.
inline constexpr int64_t kMemoryValues = 2;

/// Z, the number of the decoder's inputs.
int64_t memory_decoder_inputs(int64_t num_layers, int64_t num_heads);

/// F, the number of inputs of a layer's key and query maps.
int64_t memory_layer_inputs(int64_t layer, int64_t num_heads);

/// The step in plain ATen: the specification, any dtype and device, differentiated by autograd.
MemoryStepResult memory_step_reference(const MemoryStepInputs& inputs,
                                       const MemoryStepWeights& weights,
                                       const MemoryStepOptions& options);

/// The step, out of place. One layer in float32 takes the fused kernels: on the CPU forward and
/// backward, on CUDA forward where no gradient is needed; everything else (float64, several layers,
/// heads, features or hidden units beyond `kernels/memory_step.h`) takes the reference, with the
/// same result. The fused backward recomputes its chunk instead of storing activations, is parallel
/// over tensors and chunks, and deterministic: its sums do not depend on the number of threads.
MemoryStepResult memory_step(const MemoryStepInputs& inputs, const MemoryStepWeights& weights,
                             const MemoryStepOptions& options);

/// The step in place and without gradients: memories are overwritten and
/// params <- params - (update + decay params), with `decay` [T] or none at all. params and memories
/// must be contiguous.
void memory_step_(MemoryStepInputs& inputs, const MemoryStepWeights& weights,
                  const MemoryStepOptions& options, const at::Tensor& decay = {});

/// Whether these arguments have a fused kernel (on the CPU, forward and backward).
bool memory_step_is_fused(const MemoryStepInputs& inputs, const MemoryStepWeights& weights);

}  // namespace mnemosyne::ops
