#include "mnemosyne/nn/functional_call.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

#include "mnemosyne/core/error.h"
#include "mnemosyne/ops/untraced.h"

namespace mnemosyne::nn {

struct FunctionalModule::Instance {
  explicit Instance(std::shared_ptr<torch::nn::Module> of)
      : module(std::move(of)), tensors(module) {}

  std::shared_ptr<torch::nn::Module> module;
  ModuleTensors tensors;
};

FunctionalModule::FunctionalModule(std::shared_ptr<torch::nn::Module> module)
    : module_(std::move(module)) {
  auto first = std::make_unique<Instance>(module_);
  names_ = first->tensors.names();
  // A clone reads the registered tensors, which stay what they are while fields hold others: so the
  // module itself can be out on a call meanwhile.
  pool_ = std::make_shared<Pool<Instance>>([module = module_, own = first->tensors] {
    const ops::Untraced numbers_to_keep;
    auto instance = std::make_unique<Instance>(module->clone());
    instance->tensors.share(own);
    return instance;
  });
  if (first->tensors.are_fields()) pool_->add(std::move(first));
}

std::vector<size_t> FunctionalModule::places(const std::vector<std::string>& names) const {
  std::vector<size_t> result;
  for (const std::string& name : names) {
    const auto found = std::find(names_.begin(), names_.end(), name);
    if (found == names_.end()) {
      std::string known;
      for (const std::string& other : names_) known += (known.empty() ? "" : ", ") + other;
      throw InputError("[functional_call] expected one of " + known + " of " + module_->name() +
                       ", got \"" + name + "\"");
    }
    result.push_back(static_cast<size_t>(found - names_.begin()));
  }
  return result;
}

FunctionalModule::Call::Call(const FunctionalModule& whole, const std::vector<size_t>& places,
                             at::TensorList tensors)
    : instance_(whole.pool_->borrow()) {
  TORCH_CHECK(places.size() == tensors.size(), "[functional_call] expected ", places.size(),
              " tensors for ", whole.module_->name(), ", got ", tensors.size());
  try {
    for (size_t i = 0; i < places.size(); ++i) instance_->tensors.set(places[i], tensors[i]);
  } catch (...) {
    instance_->tensors.reset();
    throw;
  }
  if (instance_->tensors.are_fields() || !at::GradMode::is_enabled()) return;
  for (const at::Tensor& x : tensors) records_ = records_ || x.requires_grad();
}

FunctionalModule::Call::~Call() {
  if (records_) {
    instance_.keep_apart();
  } else {
    instance_->tensors.reset();
  }
}

torch::nn::Module& FunctionalModule::Call::module() const { return *instance_->module; }

}  // namespace mnemosyne::nn
