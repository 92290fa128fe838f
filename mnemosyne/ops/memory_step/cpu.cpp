#include "mnemosyne/ops/memory_step/cpu.h"

#include <ATen/DeviceAccelerator.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <memory>

#include "mnemosyne/kernels/memory_step.h"
#include "mnemosyne/ops/parallel.h"
#include "mnemosyne/ops/recycled.h"

namespace mnemosyne::ops {
namespace {

using kernels::MemoryGradLayout;
using kernels::MemoryStepModel;
using kernels::MemoryStepParams;

// A span of coordinates is what a thread takes at a time. It does not depend on the number of
// threads, so neither do the sums over spans.
constexpr int64_t kSpan = 4096;

struct Span {
  size_t tensor;
  int64_t begin, end;
};

std::vector<Span> split(const std::vector<at::Tensor>& tensors) {
  std::vector<Span> spans;
  for (size_t t = 0; t < tensors.size(); ++t) {
    for (int64_t begin = 0; begin < tensors[t].numel(); begin += kSpan) {
      spans.push_back({t, begin, std::min(begin + kSpan, tensors[t].numel())});
    }
  }
  return spans;
}

/// The coordinates that are worth waking up a thread.
constexpr int64_t kWorth = 4096;

/// Small tensors share a thread.
int64_t grain(const std::vector<Span>& spans) {
  int64_t total = 0;
  for (const Span& span : spans) total += span.end - span.begin;
  return parallel_grain(static_cast<int64_t>(spans.size()), total, kWorth);
}

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

/// Pointers to weights, and the contiguous tensors that they point into.
struct Model {
  std::vector<at::Tensor> keep;
  MemoryStepModel pointers;

  const float* pointer(const at::Tensor& tensor) {
    if (!tensor.defined()) return nullptr;
    return keep.emplace_back(tensor.detach().contiguous()).const_data_ptr<float>();
  }

  Model(const MemoryStepWeights& weights, const MemoryStepOptions& options) : pointers() {
    const MemoryLayerWeights& layer = weights.layers[0];
    MemoryStepModel& m = pointers;
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
    m.decay = pointer(layer.decay);
    m.key = pointer(layer.key);
    m.query = pointer(layer.query);
    m.radius = pointer(layer.radius);
    m.omega = pointer(weights.omega);
    m.hidden_weight = pointer(weights.hidden_weight);
    m.output_weight = pointer(weights.output_weight);
    m.output_bias = pointer(weights.output_bias);
  }
};

/// The inputs of one tensor; hidden_bias and step are contiguous.
MemoryStepParams input_params(const MemoryStepModel& model, const MemoryStepInputs& inputs,
                              const at::Tensor& hidden_bias, const at::Tensor& step,
                              const Span& span) {
  const size_t t = span.tensor;
  MemoryStepParams p{};
  p.model = model;
  p.size = inputs.grads[t].numel();
  p.begin = span.begin;
  p.end = span.end;
  p.grad = inputs.grads[t].const_data_ptr<float>();
  p.param = inputs.params[t].const_data_ptr<float>();
  p.memory = inputs.memories[t].const_data_ptr<float>();
  p.hidden_bias = hidden_bias.const_data_ptr<float>() + static_cast<int64_t>(t) * model.hidden;
  p.step = step.const_data_ptr<float>() + t;
  p.grad_scale = inputs.grad_scale.const_data_ptr<float>() + t;
  p.param_scale = inputs.param_scale.const_data_ptr<float>() + t;
  p.eps = inputs.eps.const_data_ptr<float>() + t;
  return p;
}

void set_outputs(MemoryStepParams& p, const MemoryStepOutputs& outputs, size_t t) {
  p.decay = outputs.decay.defined() ? outputs.decay.const_data_ptr<float>() + t : nullptr;
  p.memory_out = outputs.memories[t].mutable_data_ptr<float>();
  if (!outputs.updates.empty()) p.update = outputs.updates[t].mutable_data_ptr<float>();
  if (!outputs.params.empty()) p.param_out = outputs.params[t].mutable_data_ptr<float>();
}

const float* pointer_or_null(const std::vector<at::Tensor>& tensors, size_t t) {
  return tensors[t].defined() ? tensors[t].const_data_ptr<float>() : nullptr;
}

/// Sums the spans' gradients [spans, size]: per tensor for what belongs to one, else over all.
MemoryStepGradients reduce(const MemoryStepModel& m, const std::vector<Span>& spans,
                           const std::vector<float>& parts, size_t num_tensors,
                           const MemoryStepWeights& weights, const at::TensorOptions& options) {
  const MemoryGradLayout layout = kernels::memory_grad_layout(m);
  std::vector<double> shared(static_cast<size_t>(layout.size), 0.0);
  std::vector<double> own(num_tensors * static_cast<size_t>(m.hidden + 1), 0.0);
  for (size_t s = 0; s < spans.size(); ++s) {
    const float* part = parts.data() + s * static_cast<size_t>(layout.size);
    double* tensor = own.data() + spans[s].tensor * static_cast<size_t>(m.hidden + 1);
    for (int w = 0; w < layout.hidden_bias; ++w) shared[static_cast<size_t>(w)] += part[w];
    for (int w = 0; w <= m.hidden; ++w) tensor[w] += part[layout.hidden_bias + w];
  }
  const auto take = [&](int first, const at::Tensor& like) {
    if (!like.defined()) return at::Tensor();
    at::Tensor result = at::empty(like.sizes(), options);
    std::copy_n(shared.data() + first, result.numel(), result.mutable_data_ptr<float>());
    return result;
  };
  const MemoryLayerWeights& layer = weights.layers[0];
  MemoryStepGradients grads;
  grads.decay = take(layout.decay, layer.decay);
  grads.key = take(layout.key, layer.key);
  grads.query = take(layout.query, layer.query);
  grads.radius = take(layout.radius, layer.radius);
  grads.hidden_weight = take(layout.hidden_weight, weights.hidden_weight);
  grads.output_weight = take(layout.output_weight, weights.output_weight);
  grads.output_bias = take(layout.output_bias, weights.output_bias);
  grads.hidden_bias = at::empty({static_cast<int64_t>(num_tensors), m.hidden}, options);
  grads.step = at::empty({static_cast<int64_t>(num_tensors)}, options);
  for (size_t t = 0; t < num_tensors; ++t) {
    const double* tensor = own.data() + t * static_cast<size_t>(m.hidden + 1);
    std::copy_n(tensor, m.hidden,
                grads.hidden_bias.mutable_data_ptr<float>() + static_cast<int64_t>(t) * m.hidden);
    grads.step.mutable_data_ptr<float>()[t] = static_cast<float>(tensor[m.hidden]);
  }
  return grads;
}

}  // namespace

bool fused_sizes(const MemoryStepWeights& weights, int64_t num_features) {
  const at::Tensor& key = weights.layers[0].key;
  return weights.layers[0].decay.size(0) <= kernels::kMemoryMaxHeads &&
         num_features <= kernels::kMemoryMaxFeatures &&
         (!key.defined() || key.size(1) <= kernels::kMemoryMaxKeyDim) &&
         weights.hidden_weight.size(0) <= kernels::kMemoryMaxHidden;
}

void fused_forward_cpu(const MemoryStepInputs& inputs, const MemoryStepWeights& weights,
                       const MemoryStepOptions& options, const MemoryStepOutputs& outputs) {
  const Model model(weights, options);
  const at::Tensor hidden_bias = inputs.hidden_bias.contiguous(), step = inputs.step.contiguous();
  const std::vector<Span> spans = split(inputs.grads);
  const auto scratch_size = static_cast<size_t>(kernels::memory_forward_scratch(model.pointers));
  parallel_for(0, static_cast<int64_t>(spans.size()), grain(spans), [&](int64_t a, int64_t b) {
    const auto scratch = std::make_unique<float[]>(scratch_size);
    for (int64_t s = a; s < b; ++s) {
      const Span& span = spans[static_cast<size_t>(s)];
      MemoryStepParams p = input_params(model.pointers, inputs, hidden_bias, step, span);
      set_outputs(p, outputs, span.tensor);
      p.scratch = scratch.get();
      kernels::memory_step_forward(p);
    }
  });
}

void fused_forward_cuda(const MemoryStepInputs& inputs, const MemoryStepWeights& weights,
                        const MemoryStepOptions& options, const MemoryStepOutputs& outputs) {
  const Model model(weights, options);
  const at::Tensor hidden_bias = inputs.hidden_bias.contiguous(), step = inputs.step.contiguous();
  void* stream = at::accelerator::getCurrentStream(inputs.step.device().index()).native_handle();
  for (size_t t = 0; t < inputs.grads.size(); ++t) {
    if (inputs.grads[t].numel() == 0) continue;
    MemoryStepParams p =
        input_params(model.pointers, inputs, hidden_bias, step, {t, 0, inputs.grads[t].numel()});
    set_outputs(p, outputs, t);
    kernels::memory_step_forward_cuda(p, stream);
  }
}

MemoryStepGradients fused_backward_cpu(const MemoryStepInputs& inputs,
                                       const MemoryStepWeights& weights,
                                       const MemoryStepOptions& options,
                                       const std::vector<at::Tensor>& grad_updates,
                                       const std::vector<at::Tensor>& grad_memories) {
  const Model model(weights, options);
  const at::Tensor hidden_bias = inputs.hidden_bias.contiguous(), step = inputs.step.contiguous();
  const std::vector<Span> spans = split(inputs.grads);
  const auto layout_size = static_cast<size_t>(kernels::memory_grad_layout(model.pointers).size);
  const auto scratch_size = static_cast<size_t>(kernels::memory_backward_scratch(model.pointers));
  std::vector<at::Tensor> memories;
  for (const at::Tensor& memory : inputs.memories) memories.push_back(recycled_like(memory));
  std::vector<float> parts(spans.size() * layout_size);
  parallel_for(0, static_cast<int64_t>(spans.size()), grain(spans), [&](int64_t a, int64_t b) {
    const auto scratch = std::make_unique<float[]>(scratch_size);
    for (int64_t s = a; s < b; ++s) {
      const Span& span = spans[static_cast<size_t>(s)];
      kernels::MemoryStepBackwardParams p{};
      p.forward = input_params(model.pointers, inputs, hidden_bias, step, span);
      p.forward.scratch = scratch.get();
      p.grad_update = pointer_or_null(grad_updates, span.tensor);
      p.grad_memory_out = pointer_or_null(grad_memories, span.tensor);
      p.grad_memory = memories[span.tensor].mutable_data_ptr<float>();
      p.grad_weights = parts.data() + static_cast<size_t>(s) * layout_size;
      kernels::memory_step_backward(p);
    }
  });
  MemoryStepGradients grads = reduce(model.pointers, spans, parts, inputs.grads.size(), weights,
                                     step.options().requires_grad(false));
  grads.memories = std::move(memories);
  return grads;
}

}  // namespace mnemosyne::ops
