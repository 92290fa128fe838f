#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace mnemosyne::ops {

/// Gradients of a fused function that can be differentiated again: by its reference, in plain ATen.
/// For the backward pass of a node, where gradients of gradients are asked for
/// (`at::GradMode::is_enabled()` there: `create_graph`) and its own kernel has none.
///
/// `reference` maps tensors in the places of `inputs` to as many outputs as there are in `grads`,
/// which may have undefined entries, as `inputs` may. Returns the gradient of each of the first
/// `count` inputs, zeros where the reference does not use it and undefined where there is none.
/// They are functions of inputs and grads, also where one tensor stands in two places.
std::vector<at::Tensor> reference_gradients(
    const std::function<std::vector<at::Tensor>(at::TensorList)>& reference, at::TensorList inputs,
    at::TensorList grads, size_t count);

}  // namespace mnemosyne::ops
