#include "module_handle.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/csrc/jit/frontend/tracer.h>

#include <algorithm>

#include "mnemosyne/nn/layer.h"
#include "untraced.h"

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

/// For torch.jit.trace, too, the module's tensors are those of Python, not constants.
void trace_as(const std::vector<std::pair<std::string, at::Tensor>>& own,
              const std::vector<at::Tensor>& given) {
  if (!torch::jit::tracer::isTracing()) return;
  for (size_t i = 0; i < own.size(); ++i) {
    torch::jit::tracer::setValueTrace(own[i].second, torch::jit::tracer::getValueTrace(given[i]));
  }
}

bool is_layer(const torch::nn::Module& module) {
  return dynamic_cast<const nn::DenseImpl*>(&module) != nullptr ||
         dynamic_cast<const nn::NormImpl*>(&module) != nullptr;
}

}  // namespace

void check_is_plain(const at::Tensor& x) {
  TORCH_CHECK(!x.key_set().has(c10::DispatchKey::Python),
              "[module] expected plain tensors, got those of a tracer or of a subclass: ",
              "torch.export does not reach into C++ modules");
  TORCH_CHECK(!x.is_meta(), "[module] expected tensors with numbers, got one of the device meta");
  TORCH_CHECK(x.has_storage(), "[module] expected tensors with memory of their own, got ",
              x.key_set(), ": transforms of torch.func do not reach into C++ modules");
}

std::vector<std::pair<std::string, at::Tensor>> ModuleHandle::tensors() const {
  std::vector<std::string> layers;
  for (const auto& item : module_->named_modules("", /*include_self=*/false)) {
    if (is_layer(*item.value())) layers.push_back(item.key() + ".");
  }
  std::vector<std::pair<std::string, at::Tensor>> result;
  const auto add = [&](const auto& tensors) {
    for (const auto& item : tensors) {
      const bool of_layer = std::any_of(layers.begin(), layers.end(), [&](const std::string& name) {
        return item.key().starts_with(name);
      });
      if (!of_layer) result.emplace_back(item.key(), item.value());
    }
  };
  add(module_->named_parameters());
  add(module_->named_buffers());
  return result;
}

std::vector<std::string> ModuleHandle::names() const {
  std::vector<std::string> result;
  for (auto& [name, tensor] : tensors()) result.push_back(name);
  return result;
}

std::shared_ptr<ModuleHandle> ModuleHandle::tied(const std::vector<at::Tensor>& given) {
  const auto own = tensors();
  TORCH_CHECK(own.size() == given.size(), "[module] expected ", own.size(), " tensors, got ",
              given.size());
  bool same = true;
  for (size_t i = 0; i < own.size(); ++i) {
    check_is_plain(given[i]);
    same = same && is_tied(own[i].second, given[i]);
  }
  if (same) {
    trace_as(own, given);
    return std::make_shared<ModuleHandle>(module_);
  }
  // The copy outlives this call, so it may not inherit its mode.
  const Untraced untraced;
  const at::AutoGradMode with_gradients(true);
  const auto copy = std::make_shared<ModuleHandle>(module_->clone());
  const auto fresh = copy->tensors();
  for (size_t i = 0; i < fresh.size(); ++i) tie(fresh[i].second, given[i], fresh[i].first);
  trace_as(fresh, given);
  return copy;
}

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
