#include "mnemosyne/nn/module_tensors.h"

#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <map>

namespace mnemosyne::nn {
namespace {

namespace autograd = torch::autograd;

using Fields = std::multimap<const at::TensorImpl*, at::Tensor*>;

Fields fields_of(const std::shared_ptr<torch::nn::Module>& module) {
  Fields fields;
  for (const auto& part : module->modules()) {
    auto* owner = dynamic_cast<TensorFields*>(part.get());
    if (owner == nullptr) continue;
    for (at::Tensor* field : owner->tensor_fields()) {
      if (field->defined()) fields.emplace(field->unsafeGetTensorImpl(), field);
    }
  }
  return fields;
}

/// `own` becomes, for autograd too, another handle of the memory of `given`.
void stand_for(at::Tensor own, const at::Tensor& given, const std::string& name) {
  TORCH_CHECK(given.has_storage() && !given.key_set().has(c10::DispatchKey::Python),
              "[functional_call] expected a plain tensor for ", name,
              ", which is in a module of torch, got one of a tracer, of a subclass or of a "
              "transform");
  autograd::impl::set_gradient_edge(own, {});
  own.requires_grad_(false);
  own.set_data(given.detach());
  if (!given.is_inference()) {
    autograd::impl::set_version_counter(own, autograd::impl::version_counter(given));
  }
  if (given.requires_grad()) {
    autograd::impl::set_gradient_edge(own, autograd::impl::gradient_edge(given));
  }
}

void take_back(at::Tensor own, const at::Tensor& memory, bool requires_grad) {
  autograd::impl::set_gradient_edge(own, {});
  own.set_data(memory);
  autograd::impl::set_version_counter(own, autograd::impl::version_counter(memory));
  own.requires_grad_(requires_grad);
}

}  // namespace

ModuleTensors::ModuleTensors(const std::shared_ptr<torch::nn::Module>& module)
    : kind_(module->name()) {
  const Fields fields = fields_of(module);
  const auto add = [&](const auto& tensors) {
    for (const auto& item : tensors) {
      const at::Tensor& tensor = item.value();
      if (!tensor.defined()) continue;
      Own own{
          .tensor = tensor, .memory = {}, .fields = {}, .requires_grad = tensor.requires_grad()};
      const auto [first, last] = fields.equal_range(tensor.unsafeGetTensorImpl());
      for (auto it = first; it != last; ++it) own.fields.push_back(it->second);
      if (own.fields.empty()) own.memory = tensor.detach();
      names_.push_back(item.key());
      own_.push_back(std::move(own));
    }
  };
  add(module->named_parameters());
  add(module->named_buffers());
}

void ModuleTensors::share(const ModuleTensors& other) {
  for (size_t i = 0; i < own_.size(); ++i) {
    const at::Tensor& tensor = other.own_[i].tensor;
    own_[i].tensor.set_data(tensor.detach());  // what the module has registered
    if (own_[i].fields.empty()) {
      own_[i].memory = own_[i].tensor.detach();
    } else {
      own_[i].tensor = tensor;
      for (at::Tensor* field : own_[i].fields) *field = tensor;
    }
  }
}

void ModuleTensors::set(size_t place, const at::Tensor& tensor) {
  TORCH_CHECK(place < own_.size(), "[functional_call] expected at most ", own_.size(),
              " tensors for ", kind_, ", got more");
  Own& own = own_[place];
  TORCH_CHECK(tensor.defined() && tensor.sym_sizes().equals(own.tensor.sym_sizes()),
              "[functional_call] expected ", names_[place], " of shape ", own.tensor.sizes(),
              ", got ", tensor.defined() ? c10::str(tensor.sym_sizes()) : "none");
  own.changed = true;
  for (at::Tensor* field : own.fields) *field = tensor;
  if (own.fields.empty()) stand_for(own.tensor, tensor, names_[place]);
}

void ModuleTensors::reset() {
  for (Own& own : own_) {
    if (!own.changed) continue;
    own.changed = false;
    for (at::Tensor* field : own.fields) *field = own.tensor;
    if (own.fields.empty()) take_back(own.tensor, own.memory, own.requires_grad);
  }
}

bool ModuleTensors::are_fields() const {
  return std::none_of(own_.begin(), own_.end(), [](const Own& x) { return x.fields.empty(); });
}

}  // namespace mnemosyne::nn
