#include "mnemosyne/meta/checkpoint.h"

#include <sstream>

#include "mnemosyne/core/error.h"
#include "mnemosyne/io/safetensors.h"

namespace mnemosyne::meta {

void append(NamedTensors& tensors, const std::string& prefix, const NamedTensors& part) {
  for (const auto& [name, tensor] : part) tensors.emplace_back(prefix + name, tensor);
}

NamedTensors select(const NamedTensors& tensors, const std::string& prefix) {
  NamedTensors result;
  for (const auto& [name, tensor] : tensors) {
    if (name.starts_with(prefix)) result.emplace_back(name.substr(prefix.size()), tensor);
  }
  return result;
}

bool contains(const NamedTensors& tensors, const std::string& name) {
  for (const auto& [key, tensor] : tensors) {
    if (key == name) return true;
  }
  return false;
}

at::Tensor find_checked(const NamedTensors& tensors, const std::string& name, at::ScalarType dtype,
                        at::IntArrayRef sizes) {
  const at::Tensor& tensor = find(tensors, name);
  if (tensor.scalar_type() != dtype || tensor.sizes() != sizes) {
    std::ostringstream message;
    message << "[checkpoint] expected " << name << " of shape " << sizes << " and dtype " << dtype
            << ", got " << tensor.sizes() << " and " << tensor.scalar_type();
    throw InputError(message.str());
  }
  return tensor;
}

at::Tensor flatten_learned(const optim::UpdateRule& rule) {
  const NamedTensors weights = rule.weights();
  if (weights.empty()) {
    throw InputError("[meta] expected a learned optimizer, got \"" + rule.name() + "\"");
  }
  return flatten(weights).detach();
}

void save_checkpoint(const std::string& path, const NamedTensors& tensors,
                     const std::map<std::string, std::string>& metadata) {
  io::write_safetensors(path, tensors, metadata);
}

NamedTensors load_checkpoint(const std::string& path,
                             const std::map<std::string, std::string>& expected) {
  io::TensorFile file = io::read_safetensors(path);
  for (const auto& [key, value] : expected) {
    const auto found = file.metadata.find(key);
    if (found != file.metadata.end() && found->second != value) {
      throw InputError("[checkpoint] expected " + key + " = " + value + " in " + path + ", got " +
                       found->second);
    }
  }
  return std::move(file.tensors);
}

}  // namespace mnemosyne::meta
