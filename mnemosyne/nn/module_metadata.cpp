#include "mnemosyne/nn/module_metadata.h"

#include <nlohmann/json.hpp>

#include "mnemosyne/core/fields.h"
#include "mnemosyne/nn/causal_lm.h"
#include "mnemosyne/nn/point_encoder.h"
#include "mnemosyne/nn/vit.h"

namespace mnemosyne::nn {
namespace {

template <typename Options>
nlohmann::json to_json(const Options& options) {
  return nlohmann::json::parse(write_options(options));
}

template <typename Impl>
std::string position_json(const Impl& position) {
  nlohmann::json json = to_json(position.options());
  json["type"] = position.name();
  return json.dump();
}

/// Does nothing where the module is no Impl.
template <typename Impl>
void write_model(const torch::nn::Module& module, std::map<std::string, std::string>& metadata) {
  const auto* model = dynamic_cast<const Impl*>(&module);
  if (model == nullptr) return;
  const auto& options = model->options();
  const nlohmann::json arguments = {to_json(options), to_json(options.attention)};
  metadata["module"] = nlohmann::json{{"type", model->name()}, {"arguments", arguments}}.dump();
}

}  // namespace

std::map<std::string, std::string> position_metadata(const torch::nn::Module& model) {
  std::map<std::string, std::string> metadata;
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    const torch::nn::Module* module = item.value().get();
    if (const auto* fourier = dynamic_cast<const FourierPositionImpl*>(module)) {
      metadata["position." + item.key()] = position_json(*fourier);
    } else if (const auto* damped = dynamic_cast<const DampedPositionImpl*>(module)) {
      metadata["position." + item.key()] = position_json(*damped);
    }
  }
  return metadata;
}

std::map<std::string, std::string> module_metadata(const torch::nn::Module& module) {
  std::map<std::string, std::string> metadata = position_metadata(module);
  write_model<CausalLMImpl>(module, metadata);
  write_model<ViTImpl>(module, metadata);
  write_model<PointEncoderImpl>(module, metadata);
  return metadata;
}

}  // namespace mnemosyne::nn
