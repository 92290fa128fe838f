#include "module_handle.h"

#include <ATen/ops/empty.h>

#include "mnemosyne/nn/described_module.h"

namespace mnemosyne::python {

std::vector<std::string> ModuleHandle::names() const { return nn::names_without_layers(*module_); }

std::vector<std::pair<std::string, at::Tensor>> ModuleHandle::take_parameters() const {
  std::vector<std::pair<std::string, at::Tensor>> result;
  for (auto& item : module_->named_parameters(/*recurse=*/false)) {
    at::Tensor& own = item.value();
    result.emplace_back(item.key(), own.detach());
    own.set_data(at::empty({0}, own.options().requires_grad(false)));
  }
  return result;
}

std::vector<std::pair<std::string, at::Tensor>> ModuleHandle::parameters() const {
  return module_->named_parameters(/*recurse=*/false).pairs();
}

std::vector<std::pair<std::string, at::Tensor>> ModuleHandle::buffers() const {
  return module_->named_buffers(/*recurse=*/false).pairs();
}

std::vector<std::pair<std::string, std::shared_ptr<ModuleHandle>>> ModuleHandle::children() const {
  std::vector<std::pair<std::string, std::shared_ptr<ModuleHandle>>> result;
  for (const auto& child : module_->named_children()) {
    result.emplace_back(child.key(), std::make_shared<ModuleHandle>(child.value()));
  }
  return result;
}

}  // namespace mnemosyne::python
