#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

namespace mnemosyne {

/// Tensors with names, in a fixed order: the weights of a rule, the content of a weights file.
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// All values in one vector [N] of their common dtype, in the list's order.
at::Tensor flatten(const NamedTensors& tensors);

/// The inverse of `flatten`: tensors with the names, shapes and dtypes of `like` and the values of
/// `flat`, which has to have exactly as many elements as `like` (InputError otherwise).
/// Differentiable in `flat`.
NamedTensors unflatten(const at::Tensor& flat, const NamedTensors& like);

/// The tensor called `name`; InputError that names it when there is none.
const at::Tensor& find(const NamedTensors& tensors, const std::string& name);

/// The tensors of `given` that have the names of `like`, in its order. InputError where a name is
/// missing or has another shape; `where` says whose weights they are.
NamedTensors matching(const std::string& where, const NamedTensors& like,
                      const NamedTensors& given);

}  // namespace mnemosyne
