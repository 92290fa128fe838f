#include "mnemosyne/nn/described_module.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <list>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "mnemosyne/nn/layer.h"
#include "mnemosyne/nn/module_json.h"
#include "mnemosyne/nn/position/fourier_position.h"
#include "mnemosyne/ops/untraced.h"

namespace mnemosyne::nn {
namespace {

constexpr size_t kMost = 1024;

using Entry = std::shared_ptr<const DescribedModule>;

bool is_layer(const torch::nn::Module& module) {
  return dynamic_cast<const DenseImpl*>(&module) != nullptr ||
         dynamic_cast<const NormImpl*>(&module) != nullptr;
}

Entry make_entry(const std::string& description) {
  const ops::Untraced numbers_to_keep;
  std::shared_ptr<torch::nn::Module> module = module_of_json(description);
  // Nobody calls the layers: their memory goes.
  for (const auto& part : module->modules(/*include_self=*/false)) {
    if (!is_layer(*part)) continue;
    for (at::Tensor& x : part->parameters()) x.set_data(at::empty({0}, x.options()));
  }
  FunctionalModule functional(module);
  std::vector<size_t> places = functional.places(names_without_layers(*module));
  const auto parts = module->modules();
  const bool follows_input = std::any_of(parts.begin(), parts.end(), [](const auto& part) {
    const auto* position = dynamic_cast<const FourierPositionImpl*>(part.get());
    return position != nullptr && position->grows();
  });
  return std::make_shared<const DescribedModule>(
      DescribedModule{std::move(functional), std::move(places), follows_input});
}

}  // namespace

std::vector<std::string> names_without_layers(const torch::nn::Module& module) {
  std::vector<std::string> layers, names;
  for (const auto& item : module.named_modules("", /*include_self=*/false)) {
    if (is_layer(*item.value())) layers.push_back(item.key() + ".");
  }
  const auto add = [&](const auto& tensors) {
    for (const auto& item : tensors) {
      const bool of_layer = std::any_of(layers.begin(), layers.end(), [&](const std::string& name) {
        return item.key().starts_with(name);
      });
      if (!of_layer) names.push_back(item.key());
    }
  };
  add(module.named_parameters());
  add(module.named_buffers());
  return names;
}

std::shared_ptr<const DescribedModule> described_module(const std::string& description) {
  static std::mutex mutex;
  static std::list<std::pair<std::string, Entry>> recent;
  static std::unordered_map<std::string, decltype(recent)::iterator> known;
  {
    const std::lock_guard lock(mutex);
    const auto found = known.find(description);
    if (found != known.end()) {
      recent.splice(recent.begin(), recent, found->second);
      return found->second->second;
    }
  }
  Entry entry = make_entry(description);  // may take a while: without the lock
  const std::lock_guard lock(mutex);
  const auto found = known.find(description);
  if (found != known.end()) return found->second->second;
  recent.emplace_front(description, entry);
  known[description] = recent.begin();
  if (recent.size() > kMost) {
    known.erase(recent.back().first);
    recent.pop_back();
  }
  return entry;
}

}  // namespace mnemosyne::nn
