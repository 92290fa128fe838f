#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/stack.h>

#include "mnemosyne/ops/memory_step/memory_step.h"

// The numbers in the comments are those of the specification in memory_step.h.

namespace mnemosyne::ops {
namespace {

constexpr double kLargestGradient = 1e17;
constexpr double kSmallestVariance = 1e-36;

at::Tensor squash(const at::Tensor& x) { return x * (1 + x.square()).rsqrt(); }

/// 2. Token of the first layer, [F, N].
at::Tensor first_token(const at::Tensor& grad, const at::Tensor& param,
                       const at::Tensor& grad_scale, const at::Tensor& param_scale) {
  const at::Tensor a = grad * grad_scale;
  const at::Tensor log_size = ((a.abs() + 1e-9).log() / 10).clamp(-1, 1);
  return at::stack({squash(a), log_size, squash(param * param_scale), at::ones_like(a)});
}

/// 3. phi(address(weight x)), [H, R, N].
at::Tensor address_features(const at::Tensor& weight, const at::Tensor& radius,
                            const at::Tensor& token, const MemoryStepWeights& weights,
                            const MemoryStepOptions& options) {
  const int64_t heads = weight.size(0), dim = weight.size(1), count = token.size(1);
  const at::Tensor y =
      at::matmul(weight.reshape({heads * dim, -1}), token).view({heads, dim, count});
  const at::Tensor length = (1 + y.square().sum(1, /*keepdim=*/true)).rsqrt();
  const at::Tensor address = radius.view({heads, 1, 1}) * y * length;
  return feature_map(options.feature_map, address.transpose(1, 2), weights.omega).transpose(1, 2);
}

struct LayerResult {
  at::Tensor memory;  // [H, R, C, N]
  at::Tensor reads;   // [H, V, N]
};

/// 5. and 6. for one layer; values [C, N], the last channel 1.
LayerResult write_and_read(const MemoryLayerWeights& layer, const at::Tensor& memory,
                           const at::Tensor& token, const at::Tensor& values,
                           const MemoryStepWeights& weights, const MemoryStepOptions& options) {
  const bool constant = options.feature_map == FeatureMapKind::kConstant;
  const double floor = traits_of(options.feature_map).positive ? 1e-12 : 0.1;
  const at::Tensor decayed = layer.decay.view({-1, 1, 1, 1}) * memory;
  at::Tensor next, sums;
  if (constant) {
    next = decayed + values;
    sums = next.squeeze(1);
  } else {
    const at::Tensor keys = address_features(layer.key, layer.radius, token, weights, options);
    const at::Tensor queries = address_features(layer.query, layer.radius, token, weights, options);
    next = decayed + keys.unsqueeze(2) * values;
    sums = (queries.unsqueeze(2) * next).sum(1);  // [H, C, N]
  }
  const at::Tensor normaliser = sums.narrow(1, kMemoryValues, 1).clamp_min(floor);
  return {next, sums.narrow(1, 0, kMemoryValues) / normaliser};
}

struct TensorStep {
  at::Tensor update;
  at::Tensor memory;
};

TensorStep step_one(const MemoryStepInputs& inputs, size_t t, const MemoryStepWeights& weights,
                    const MemoryStepOptions& options) {
  const at::Tensor grad = inputs.grads[t].clamp(-kLargestGradient, kLargestGradient);  // 1.
  const at::Tensor one = at::ones_like(grad);
  at::Tensor token =
      first_token(grad, inputs.params[t], inputs.grad_scale[t], inputs.param_scale[t]);
  at::Tensor values = at::stack({grad, grad.square(), one});  // 4.
  std::vector<at::Tensor> memories, decoder_inputs{token.narrow(0, 0, 3)};
  at::Tensor base;
  for (size_t l = 0; l < weights.layers.size(); ++l) {
    const MemoryLayerWeights& layer = weights.layers[l];
    const at::Tensor memory = inputs.memories[t].select(0, static_cast<int64_t>(l));
    if (l > 0) values = at::cat({at::matmul(layer.value, token), one.unsqueeze(0)});
    auto [next, reads] = write_and_read(layer, memory, token, values, weights, options);
    memories.push_back(next);
    if (l == 0) {                                                                      // 7.
      const at::Tensor size = reads.select(1, 1).clamp_min(kSmallestVariance).sqrt();  // [H, N]
      const at::Tensor base_size = size[options.variance_head];
      const at::Tensor inverse = (base_size + inputs.eps[t]).reciprocal();
      const at::Tensor means = reads.select(1, 0) * inverse;  // [H, N]
      base = means[options.momentum_head];
      decoder_inputs.push_back(squash(grad * inverse).unsqueeze(0));
      decoder_inputs.push_back(squash(means));
      decoder_inputs.push_back((size - base_size) / (size + base_size));
      token = at::cat({decoder_inputs[2], decoder_inputs[3], one.unsqueeze(0)});
    } else {
      const at::Tensor squashed = squash(reads).flatten(0, 1);
      decoder_inputs.push_back(squashed);
      token = at::cat({squashed, one.unsqueeze(0)});
    }
  }
  const at::Tensor hidden = at::relu(at::matmul(weights.hidden_weight, at::cat(decoder_inputs)) +
                                     inputs.hidden_bias[t].unsqueeze(1));  // 8.
  const at::Tensor output =
      squash(at::matmul(weights.output_weight, hidden) + weights.output_bias.unsqueeze(1));
  const at::Tensor direction = base + options.direction_bound * output[0];
  const at::Tensor magnitude = (options.magnitude_bound * output[1]).exp();
  return {inputs.step[t] * direction * magnitude, at::stack(memories)};  // 9.
}

}  // namespace

int64_t memory_decoder_inputs(int64_t num_layers, int64_t num_heads) {
  return 4 + 2 * num_heads + (num_layers - 1) * num_heads * kMemoryValues;
}

int64_t memory_layer_inputs(int64_t layer, int64_t num_heads) {
  return layer == 0 ? 4 : kMemoryValues * num_heads + 1;
}

MemoryStepResult memory_step_reference(const MemoryStepInputs& inputs,
                                       const MemoryStepWeights& weights,
                                       const MemoryStepOptions& options) {
  MemoryStepResult result;
  for (size_t t = 0; t < inputs.grads.size(); ++t) {
    auto [update, memory] = step_one(inputs, t, weights, options);
    result.updates.push_back(update);
    result.memories.push_back(memory);
  }
  return result;
}

}  // namespace mnemosyne::ops
