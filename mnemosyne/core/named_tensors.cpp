#include "mnemosyne/core/named_tensors.h"

#include <ATen/ops/cat.h>
#include <c10/util/StringUtil.h>

#include "mnemosyne/core/error.h"

namespace mnemosyne {

at::Tensor flatten(const NamedTensors& tensors) {
  std::vector<at::Tensor> parts;
  parts.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) parts.push_back(tensor.reshape({-1}));
  return at::cat(parts);
}

NamedTensors unflatten(const at::Tensor& flat, const NamedTensors& like) {
  int64_t expected = 0;
  for (const auto& [name, tensor] : like) expected += tensor.numel();
  if (flat.dim() != 1 || flat.numel() != expected) {
    throw InputError("[unflatten] expected " + std::to_string(expected) + " values, got " +
                     std::to_string(flat.numel()));
  }
  NamedTensors result;
  int64_t offset = 0;
  for (const auto& [name, tensor] : like) {
    const at::Tensor part = flat.narrow(0, offset, tensor.numel()).view(tensor.sizes());
    result.emplace_back(name, part.to(tensor.scalar_type()));
    offset += tensor.numel();
  }
  return result;
}

const at::Tensor& find(const NamedTensors& tensors, const std::string& name) {
  for (const auto& [key, tensor] : tensors) {
    if (key == name) return tensor;
  }
  throw InputError("[weights] expected a tensor named \"" + name + "\", got none");
}

NamedTensors matching(const std::string& where, const NamedTensors& like,
                      const NamedTensors& given) {
  NamedTensors result;
  for (const auto& [name, tensor] : like) {
    const at::Tensor& own = find(given, name);
    if (own.sizes() != tensor.sizes()) {
      throw InputError("[" + where + "] expected " + name + " of shape " +
                       c10::str(tensor.sizes()) + ", got " + c10::str(own.sizes()));
    }
    result.emplace_back(name, own);
  }
  return result;
}

}  // namespace mnemosyne
