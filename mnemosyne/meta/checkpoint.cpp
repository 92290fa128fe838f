#include "mnemosyne/meta/checkpoint.h"

#include <sstream>
#include <utility>

#include "mnemosyne/core/error.h"
#include "mnemosyne/io/crc32c.h"
#include "mnemosyne/io/file.h"

namespace mnemosyne::meta {
namespace {

constexpr const char* kChecksum = "checksum";

std::string checksum(const NamedTensors& tensors) {
  uint32_t crc = 0;
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor values = tensor.cpu().contiguous();
    crc = io::crc32c(name, crc);
    crc = io::crc32c({static_cast<const char*>(values.const_data_ptr()), values.nbytes()}, crc);
  }
  return std::to_string(crc);
}

[[noreturn]] void refuse(const std::string& path, const std::string& expected,
                         const std::string& got) {
  throw InputError("[checkpoint] " + path + ": expected " + expected + ", got " + got);
}

}  // namespace

void append(NamedTensors& tensors, const std::string& prefix, const NamedTensors& part) {
  for (const auto& [name, tensor] : part) tensors.emplace_back(prefix + name, tensor);
}

void append(NamedTensors& tensors, const std::string& prefix, const std::vector<at::Tensor>& list) {
  for (size_t i = 0; i < list.size(); ++i) {
    tensors.emplace_back(prefix + std::to_string(i), list[i].detach().clone());
  }
}

void append(NamedTensors& tensors, const std::string& prefix, const optim::State& state) {
  for (size_t i = 0; i < state.size(); ++i) {
    append(tensors, prefix + std::to_string(i) + ".", state[i]);
  }
  append(tensors, prefix + "shared.", state.shared);
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

std::vector<at::Tensor> find_alike(const NamedTensors& tensors, const std::string& prefix,
                                   const std::vector<at::Tensor>& like) {
  std::vector<at::Tensor> result;
  for (size_t i = 0; i < like.size(); ++i) {
    const at::Tensor found =
        find_checked(tensors, prefix + std::to_string(i), like[i].scalar_type(), like[i].sizes());
    result.push_back(found.to(like[i].device(), found.scalar_type(), /*non_blocking=*/false,
                              /*copy=*/true));
  }
  return result;
}

optim::State find_alike(const NamedTensors& tensors, const std::string& prefix,
                        const optim::State& like) {
  optim::State result;
  for (size_t i = 0; i < like.size(); ++i) {
    result.push_back(find_alike(tensors, prefix + std::to_string(i) + ".", like[i]));
  }
  result.shared = find_alike(tensors, prefix + "shared.", like.shared);
  return result;
}

at::Tensor flatten_learned(const optim::UpdateRule& rule) {
  const NamedTensors weights = rule.weights();
  if (weights.empty()) {
    throw InputError("[meta] expected a learned optimizer, got \"" + rule.name() + "\"");
  }
  return flatten(weights).detach();
}

void save_checkpoint(const std::string& path, const NamedTensors& tensors,
                     std::map<std::string, std::string> metadata) {
  metadata[kChecksum] = checksum(tensors);
  io::write_safetensors(path, tensors, metadata);
}

io::TensorFile load_checkpoint(const std::string& path) {
  io::TensorFile file = io::read_safetensors(path);
  const auto found = file.metadata.find(kChecksum);
  if (found != file.metadata.end() && found->second != checksum(file.tensors)) {
    refuse(path, "numbers with its checksum", "others");
  }
  return file;
}

io::TensorFile load_checkpoint(const std::string& path,
                               const std::map<std::string, std::string>& expected) {
  io::TensorFile file = load_checkpoint(path);
  for (const auto& [key, value] : expected) {
    const auto found = file.metadata.find(key);
    const std::string got = found == file.metadata.end() ? "" : found->second;
    if (got != value) refuse(path, key + " " + value, io::in_quotes(got));
  }
  return file;
}

}  // namespace mnemosyne::meta
