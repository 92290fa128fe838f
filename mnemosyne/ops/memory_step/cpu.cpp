#include <ATen/ops/empty.h>

#include <algorithm>
#include <memory>

#include "mnemosyne/ops/memory_step/fused.h"
#include "mnemosyne/ops/memory_step/problem.h"
#include "mnemosyne/ops/parallel.h"
#include "mnemosyne/ops/recycled.h"

namespace mnemosyne::ops {
namespace {

using kernels::MemoryGradLayout;
using kernels::MemoryStepModel;
using kernels::MemoryStepParams;

/// The coordinates that a thread takes at a time: they do not depend on the number of threads, so
/// neither do the sums over spans.
struct Span {
  size_t tensor;
  int64_t begin, end;
};

std::vector<Span> split(const std::vector<at::Tensor>& tensors) {
  std::vector<Span> spans;
  for (size_t t = 0; t < tensors.size(); ++t) {
    for (int64_t begin = 0; begin < tensors[t].numel(); begin += kernels::kMemorySpan) {
      spans.push_back({t, begin, std::min(begin + kernels::kMemorySpan, tensors[t].numel())});
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

void fused_forward_cpu(const MemoryStepInputs& inputs, const MemoryStepWeights& weights,
                       const MemoryStepOptions& options, const MemoryStepOutputs& outputs) {
  const MemoryStepProblem problem(inputs, weights, options, outputs);
  const std::vector<Span> spans = split(inputs.grads);
  const int64_t floats = kernels::memory_step_forward_scratch(problem.model);
  parallel_for(0, static_cast<int64_t>(spans.size()), grain(spans), [&](int64_t a, int64_t b) {
    const auto scratch = std::make_unique<float[]>(static_cast<size_t>(floats));
    for (int64_t s = a; s < b; ++s) {
      const Span& span = spans[static_cast<size_t>(s)];
      kernels::memory_step_forward(
          {problem.tensors[span.tensor], span.begin, span.end, scratch.get()});
    }
  });
}

MemoryStepGradients fused_backward_cpu(const MemoryStepInputs& inputs,
                                       const MemoryStepWeights& weights,
                                       const MemoryStepOptions& options,
                                       const std::vector<at::Tensor>& grad_updates,
                                       const std::vector<at::Tensor>& grad_memories) {
  const MemoryStepProblem problem(inputs, weights, options, {});
  const std::vector<Span> spans = split(inputs.grads);
  const auto layout_size = static_cast<size_t>(kernels::memory_grad_layout(problem.model).size);
  std::vector<at::Tensor> memories;
  for (const at::Tensor& memory : inputs.memories) memories.push_back(recycled_like(memory));
  std::vector<float> parts(spans.size() * layout_size);
  std::vector<kernels::MemoryStepBackwardParams> tensors;
  for (size_t t = 0, row = 0; t < inputs.grads.size(); ++t) {
    tensors.push_back({.forward = problem.tensors[t],
                       .grad_update = pointer_or_null(grad_updates, t),
                       .grad_memory_out = pointer_or_null(grad_memories, t),
                       .grad_memory = memories[t].mutable_data_ptr<float>(),
                       .grad_weights = parts.data() + row * layout_size});
    while (row < spans.size() && spans[row].tensor == t) ++row;
  }
  const int64_t floats = kernels::memory_step_backward_scratch(problem.model);
  parallel_for(0, static_cast<int64_t>(spans.size()), grain(spans), [&](int64_t a, int64_t b) {
    const auto scratch = std::make_unique<float[]>(static_cast<size_t>(floats));
    for (int64_t s = a; s < b; ++s) {
      const Span& span = spans[static_cast<size_t>(s)];
      kernels::memory_step_backward({tensors[span.tensor], span.begin, span.end, scratch.get()});
    }
  });
  MemoryStepGradients grads = reduce(problem.model, spans, parts, inputs.grads.size(), weights,
                                     inputs.step.options().requires_grad(false));
  grads.memories = std::move(memories);
  return grads;
}

}  // namespace mnemosyne::ops
