#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "mnemosyne/ops/memory_step/fused.h"
#include "mnemosyne/ops/memory_step/memory_step.h"
#include "mnemosyne/ops/recycled.h"

namespace mnemosyne::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// What a step does not differentiate.
struct Constants : torch::CustomClassHolder {
  MemoryStepInputs inputs;  // without memories, hidden_bias and step
  MemoryStepOptions options;
  at::Tensor omega;
};

/// The differentiable arguments as one list: six tensors, three more but for the constant feature
/// map, then the memories.
variable_list pack(const MemoryStepInputs& inputs, const MemoryStepWeights& weights) {
  const MemoryLayerWeights& layer = weights.layers[0];
  variable_list variables{layer.decay,         weights.hidden_weight, weights.output_weight,
                          weights.output_bias, inputs.hidden_bias,    inputs.step};
  if (weights.omega.defined()) {
    variables.insert(variables.end(), {layer.key, layer.query, layer.radius});
  }
  variables.insert(variables.end(), inputs.memories.begin(), inputs.memories.end());
  return variables;
}

void unpack(at::TensorList variables, const Constants& constants, MemoryStepInputs& inputs,
            MemoryStepWeights& weights) {
  inputs = constants.inputs;
  MemoryLayerWeights& layer = weights.layers.emplace_back();
  layer.decay = variables[0];
  weights.hidden_weight = variables[1];
  weights.output_weight = variables[2];
  weights.output_bias = variables[3];
  inputs.hidden_bias = variables[4];
  inputs.step = variables[5];
  weights.omega = constants.omega;
  size_t next = 6;
  if (weights.omega.defined()) {
    layer.key = variables[6];
    layer.query = variables[7];
    layer.radius = variables[8];
    next = 9;
  }
  inputs.memories = variables.slice(next).vec();
}

MemoryStepOutputs new_outputs(const MemoryStepInputs& inputs) {
  MemoryStepOutputs outputs;
  for (size_t t = 0; t < inputs.grads.size(); ++t) {
    outputs.updates.push_back(at::empty_like(inputs.grads[t]));
    outputs.memories.push_back(inputs.memories[t].is_cpu() ? recycled_like(inputs.memories[t])
                                                           : at::empty_like(inputs.memories[t]));
  }
  return outputs;
}

/// The fused pair as one node of the graph for all tensors of a step.
class MemoryStepFunction : public torch::autograd::Function<MemoryStepFunction> {
 public:
  static variable_list forward(AutogradContext* context, at::TensorList variables,
                               const c10::intrusive_ptr<Constants>& constants) {
    MemoryStepInputs inputs;
    MemoryStepWeights weights;
    unpack(variables, *constants, inputs, weights);
    const MemoryStepOutputs outputs = new_outputs(inputs);
    fused_forward_cpu(inputs, weights, constants->options, outputs);
    context->save_for_backward(variables.vec());
    context->saved_data["constants"] = c10::IValue::make_capsule(constants);
    context->set_materialize_grads(false);
    variable_list result = outputs.updates;
    result.insert(result.end(), outputs.memories.begin(), outputs.memories.end());
    return result;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grad_outputs) {
    const variable_list variables = context->get_saved_variables();
    const auto constants =
        c10::static_intrusive_pointer_cast<Constants>(context->saved_data["constants"].toCapsule());
    MemoryStepInputs inputs;
    MemoryStepWeights weights;
    unpack(variables, *constants, inputs, weights);
    const size_t count = inputs.grads.size();
    std::vector<at::Tensor> grad_updates, grad_memories;
    for (size_t t = 0; t < count; ++t) {
      const at::Tensor &update = grad_outputs[t], &memory = grad_outputs[count + t];
      grad_updates.push_back(update.defined() ? update.contiguous() : update);
      grad_memories.push_back(memory.defined() ? memory.contiguous() : memory);
    }
    const MemoryStepGradients grads =
        fused_backward_cpu(inputs, weights, constants->options, grad_updates, grad_memories);
    variable_list result{grads.decay,       grads.hidden_weight, grads.output_weight,
                         grads.output_bias, grads.hidden_bias,   grads.step};
    if (weights.omega.defined()) {
      result.insert(result.end(), {grads.key, grads.query, grads.radius});
    }
    result.insert(result.end(), grads.memories.begin(), grads.memories.end());
    result.emplace_back();  // of the constants
    return result;
  }
};

bool needs_gradient(const MemoryStepInputs& inputs, const MemoryStepWeights& weights) {
  if (!at::GradMode::is_enabled()) return false;
  std::vector<at::Tensor> tensors{inputs.hidden_bias, inputs.step, weights.hidden_weight,
                                  weights.output_weight, weights.output_bias};
  for (const MemoryLayerWeights& layer : weights.layers) {
    tensors.insert(tensors.end(), {layer.decay, layer.key, layer.query, layer.radius, layer.value});
  }
  tensors.insert(tensors.end(), inputs.memories.begin(), inputs.memories.end());
  return std::any_of(tensors.begin(), tensors.end(), [](const at::Tensor& tensor) {
    return tensor.defined() && tensor.requires_grad();
  });
}

/// Gradients and parameters are copied, for the caller may step its parameters in place before it
/// asks for the backward pass.
MemoryStepResult with_graph(const MemoryStepInputs& inputs, const MemoryStepWeights& weights,
                            const MemoryStepOptions& options) {
  auto constants = c10::make_intrusive<Constants>();
  constants->inputs = inputs;
  constants->inputs.memories.clear();
  constants->inputs.hidden_bias = constants->inputs.step = at::Tensor();
  for (at::Tensor& grad : constants->inputs.grads) grad = grad.detach().clone();
  for (at::Tensor& param : constants->inputs.params) param = param.detach().clone();
  constants->options = options;
  constants->omega = weights.omega;
  const variable_list variables = pack(inputs, weights);
  const variable_list outputs = MemoryStepFunction::apply(at::TensorList(variables), constants);
  const auto middle = outputs.begin() + static_cast<int64_t>(inputs.grads.size());
  return {{outputs.begin(), middle}, {middle, outputs.end()}};
}

void check(const MemoryStepInputs& inputs, const MemoryStepWeights& weights,
           const MemoryStepOptions& options) {
  const size_t count = inputs.grads.size();
  const auto is_one_each = [&](const at::Tensor& numbers) {
    return numbers.dim() == 1 && numbers.size(0) == static_cast<int64_t>(count) &&
           numbers.scalar_type() == inputs.step.scalar_type();
  };
  TORCH_CHECK(inputs.params.size() == count && inputs.memories.size() == count &&
                  is_one_each(inputs.grad_scale) && is_one_each(inputs.param_scale) &&
                  is_one_each(inputs.eps),
              "[memory_step] expected ", count, " of everything that belongs to a tensor");
  const int64_t layers = static_cast<int64_t>(weights.layers.size());
  TORCH_CHECK(layers > 0, "[memory_step] expected at least one layer, got none");
  const int64_t heads = weights.layers[0].decay.size(0), hidden = weights.hidden_weight.size(0);
  const int64_t decoder = memory_decoder_inputs(layers, heads);
  TORCH_CHECK(weights.hidden_weight.size(1) == decoder, "[memory_step] expected hidden_weight [U, ",
              decoder, "], got ", weights.hidden_weight.sizes());
  TORCH_CHECK(std::max(options.momentum_head, options.variance_head) < heads,
              "[memory_step] expected heads below ", heads, ", got ", options.momentum_head,
              " and ", options.variance_head);
  TORCH_CHECK(
      inputs.hidden_bias.sizes() == at::IntArrayRef({static_cast<int64_t>(count), hidden}) &&
          inputs.step.sizes() == at::IntArrayRef({static_cast<int64_t>(count)}),
      "[memory_step] expected hidden_bias [T, U] and step [T], got ", inputs.hidden_bias.sizes(),
      " and ", inputs.step.sizes());
  TORCH_CHECK(options.feature_map != FeatureMapKind::kElu,
              "[memory_step] expected a feature map with random vectors or kConstant, got kElu");
  const int64_t features =
      num_features(options.feature_map, weights.omega.defined() ? weights.omega.size(0) : 0);
  for (size_t t = 0; t < count; ++t) {
    const int64_t size = inputs.grads[t].numel();
    const int64_t shape[] = {layers, heads, features, kMemoryValues + 1, size};
    TORCH_CHECK(inputs.memories[t].sizes() == at::IntArrayRef(shape),
                "[memory_step] expected a memory of shape ", at::IntArrayRef(shape), ", got ",
                inputs.memories[t].sizes());
    TORCH_CHECK(inputs.params[t].dim() == 1 && inputs.grads[t].dim() == 1 &&
                    inputs.params[t].numel() == size,
                "[memory_step] expected grad and param of shape [N], got ", inputs.grads[t].sizes(),
                " and ", inputs.params[t].sizes());
  }
}

/// The kernels walk through memory.
MemoryStepInputs contiguous(MemoryStepInputs inputs) {
  for (auto* list : {&inputs.grads, &inputs.params, &inputs.memories}) {
    for (at::Tensor& tensor : *list) tensor = tensor.contiguous();
  }
  for (at::Tensor* numbers : {&inputs.grad_scale, &inputs.param_scale, &inputs.eps}) {
    *numbers = numbers->contiguous();
  }
  return inputs;
}

bool kernels_fit(const MemoryStepInputs& inputs, const MemoryStepWeights& weights) {
  return inputs.step.scalar_type() == at::kFloat && weights.layers.size() == 1 &&
         !inputs.memories.empty() && fused_sizes(weights, inputs.memories[0].size(2));
}

void fused_forward(const MemoryStepInputs& inputs, const MemoryStepWeights& weights,
                   const MemoryStepOptions& options, const MemoryStepOutputs& outputs) {
  const bool cuda = inputs.step.is_cuda();
  (cuda ? fused_forward_cuda : fused_forward_cpu)(inputs, weights, options, outputs);
}

}  // namespace

bool memory_step_is_fused(const MemoryStepInputs& inputs, const MemoryStepWeights& weights) {
  return inputs.step.is_cpu() && kernels_fit(inputs, weights);
}

MemoryStepResult memory_step(const MemoryStepInputs& inputs, const MemoryStepWeights& weights,
                             const MemoryStepOptions& options) {
  check(inputs, weights, options);
  const bool gradient = needs_gradient(inputs, weights);
  const bool device = inputs.step.is_cpu() || (inputs.step.is_cuda() && !gradient);
  if (!device || !kernels_fit(inputs, weights)) {
    return memory_step_reference(inputs, weights, options);
  }
  const MemoryStepInputs dense = contiguous(inputs);
  if (gradient) return with_graph(dense, weights, options);
  MemoryStepOutputs outputs = new_outputs(dense);
  fused_forward(dense, weights, options, outputs);
  return {std::move(outputs.updates), std::move(outputs.memories)};
}

void memory_step_(MemoryStepInputs& inputs, const MemoryStepWeights& weights,
                  const MemoryStepOptions& options, const at::Tensor& decay) {
  const at::NoGradGuard no_grad;
  check(inputs, weights, options);
  for (size_t t = 0; t < inputs.grads.size(); ++t) {
    TORCH_CHECK(inputs.params[t].is_contiguous() && inputs.memories[t].is_contiguous(),
                "[memory_step_] expected contiguous parameters and memories, got strides ",
                inputs.params[t].strides(), " and ", inputs.memories[t].strides());
  }
  const bool device = inputs.step.is_cpu() || inputs.step.is_cuda();
  if (device && kernels_fit(inputs, weights)) {
    const MemoryStepInputs dense = contiguous(inputs);
    fused_forward(dense, weights, options,
                  {.memories = dense.memories,
                   .updates = {},
                   .params = dense.params,
                   .decay = decay.defined() ? decay.contiguous() : decay});
    return;
  }
  const MemoryStepResult result = memory_step_reference(inputs, weights, options);
  for (size_t t = 0; t < inputs.grads.size(); ++t) {
    at::Tensor change = result.updates[t];
    if (decay.defined()) change = change + decay[t] * inputs.params[t];
    inputs.params[t].sub_(change);
    inputs.memories[t].copy_(result.memories[t]);
  }
}

}  // namespace mnemosyne::ops
