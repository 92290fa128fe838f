#include "mnemosyne/ops/memory_step/problem.h"

namespace mnemosyne::ops {
namespace {

using kernels::MemoryStepModel;
using kernels::MemoryStepParams;

kernels::MemoryFeatures kernel_map(FeatureMapKind kind) {
  switch (kind) {
    case FeatureMapKind::kConstant:
      return kernels::MemoryFeatures::kConstant;
    case FeatureMapKind::kFavorPlus:
      return kernels::MemoryFeatures::kFavorPlus;
    case FeatureMapKind::kHypPlus:
      return kernels::MemoryFeatures::kHypPlus;
    case FeatureMapKind::kTrig:
      return kernels::MemoryFeatures::kTrig;
    case FeatureMapKind::kRelu:
    case FeatureMapKind::kElu:  // refused by memory_step
      break;
  }
  return kernels::MemoryFeatures::kRelu;
}

void set_outputs(MemoryStepParams& p, const MemoryStepOutputs& outputs, size_t t) {
  p.decay = outputs.decay.defined() ? outputs.decay.const_data_ptr<float>() + t : nullptr;
  if (!outputs.memories.empty()) p.memory_out = outputs.memories[t].mutable_data_ptr<float>();
  if (!outputs.updates.empty()) p.update = outputs.updates[t].mutable_data_ptr<float>();
  if (!outputs.params.empty()) p.param_out = outputs.params[t].mutable_data_ptr<float>();
}

}  // namespace

const float* MemoryStepProblem::keep(const at::Tensor& tensor) {
  if (!tensor.defined()) return nullptr;
  return kept_.emplace_back(tensor.detach().contiguous()).const_data_ptr<float>();
}

MemoryStepProblem::MemoryStepProblem(const MemoryStepInputs& inputs,
                                     const MemoryStepWeights& weights,
                                     const MemoryStepOptions& options,
                                     const MemoryStepOutputs& outputs) {
  const MemoryLayerWeights& layer = weights.layers[0];
  MemoryStepModel& m = model;
  m.map = kernel_map(options.feature_map);
  m.heads = static_cast<int>(layer.decay.size(0));
  m.omegas = weights.omega.defined() ? static_cast<int>(weights.omega.size(0)) : 0;
  m.features = static_cast<int>(num_features(options.feature_map, m.omegas));
  m.key_dim = layer.key.defined() ? static_cast<int>(layer.key.size(1)) : 0;
  m.hidden = static_cast<int>(weights.hidden_weight.size(0));
  m.momentum_head = static_cast<int>(options.momentum_head);
  m.variance_head = static_cast<int>(options.variance_head);
  m.direction_bound = static_cast<float>(options.direction_bound);
  m.magnitude_bound = static_cast<float>(options.magnitude_bound);
  m.decay = keep(layer.decay);
  m.key = keep(layer.key);
  m.query = keep(layer.query);
  m.radius = keep(layer.radius);
  m.omega = keep(weights.omega);
  m.hidden_weight = keep(weights.hidden_weight);
  m.output_weight = keep(weights.output_weight);
  m.output_bias = keep(weights.output_bias);
  const float* hidden_bias = keep(inputs.hidden_bias);
  const float* step = keep(inputs.step);
  for (size_t t = 0; t < inputs.grads.size(); ++t) {
    MemoryStepParams& p = tensors.emplace_back();
    p.model = model;
    p.size = inputs.grads[t].numel();
    p.grad = inputs.grads[t].const_data_ptr<float>();
    p.param = inputs.params[t].const_data_ptr<float>();
    p.memory = inputs.memories[t].const_data_ptr<float>();
    p.hidden_bias = hidden_bias + static_cast<int64_t>(t) * model.hidden;
    p.step = step + t;
    p.grad_scale = inputs.grad_scale.const_data_ptr<float>() + t;
    p.param_scale = inputs.param_scale.const_data_ptr<float>() + t;
    p.eps = inputs.eps.const_data_ptr<float>() + t;
    set_outputs(p, outputs, t);
  }
}

bool fused_sizes(const MemoryStepWeights& weights, int64_t num_features) {
  const at::Tensor& key = weights.layers[0].key;
  return weights.layers[0].decay.size(0) <= kernels::kMemoryMaxHeads &&
         num_features <= kernels::kMemoryMaxFeatures &&
         (!key.defined() || key.size(1) <= kernels::kMemoryMaxKeyDim) &&
         weights.hidden_weight.size(0) <= kernels::kMemoryMaxHidden;
}

}  // namespace mnemosyne::ops
