#include "module_handle.h"

#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/variable.h>

namespace mnemosyne::python {
namespace {

namespace autograd = torch::autograd;

autograd::Edge edge_of(const at::Tensor& x) {
  return x.requires_grad() ? autograd::impl::gradient_edge(x) : autograd::Edge();
}

bool is_tied(const at::Tensor& own, const at::Tensor& given) {
  if (own.is_same(given)) return true;
  const autograd::Edge edge = edge_of(given);
  return own.storage().is_alias_of(given.storage()) && own.sizes() == given.sizes() &&
         own.strides() == given.strides() && own.storage_offset() == given.storage_offset() &&
         own.scalar_type() == given.scalar_type() && own.grad_fn() == edge.function &&
         own.output_nr() == edge.input_nr;
}

void tie(at::Tensor own, const at::Tensor& given, const std::string& name) {
  TORCH_CHECK(own.sizes() == given.sizes(), "[module] expected ", name, " of shape ", own.sizes(),
              ", got ", given.sizes());
  own.requires_grad_(false);
  own.set_data(given.detach());
  if (!given.is_inference()) {
    autograd::impl::set_version_counter(own, autograd::impl::version_counter(given));
  }
  if (given.requires_grad()) autograd::impl::set_gradient_edge(own, edge_of(given));
}

}  // namespace

std::vector<at::Tensor> ModuleHandle::tensors() const {
  std::vector<at::Tensor> result = module_->parameters();
  for (at::Tensor& buffer : module_->buffers()) result.push_back(buffer);
  return result;
}

std::vector<std::string> ModuleHandle::names() const {
  std::vector<std::string> result = module_->named_parameters().keys();
  for (std::string& name : module_->named_buffers().keys()) result.push_back(name);
  return result;
}

std::shared_ptr<ModuleHandle> ModuleHandle::tied(const std::vector<at::Tensor>& given) {
  const std::vector<at::Tensor> own = tensors();
  TORCH_CHECK(own.size() == given.size(), "[module] expected ", own.size(), " tensors, got ",
              given.size());
  bool same = true;
  for (size_t i = 0; i < own.size() && same; ++i) {
    TORCH_CHECK(given[i].has_storage(), "[module] expected tensors with memory of their own, got ",
                given[i].key_set(), ": transforms of torch.func do not reach into C++ modules");
    same = is_tied(own[i], given[i]);
  }
  if (same) return std::make_shared<ModuleHandle>(module_);
  // The copy outlives this call, so it may not inherit its mode.
  const c10::InferenceMode no_inference(false);
  const at::AutoGradMode with_gradients(true);
  const auto copy = std::make_shared<ModuleHandle>(module_->clone());
  const std::vector<std::string> all = names();
  const std::vector<at::Tensor> fresh = copy->tensors();
  for (size_t i = 0; i < fresh.size(); ++i) tie(fresh[i], given[i], all[i]);
  return copy;
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
