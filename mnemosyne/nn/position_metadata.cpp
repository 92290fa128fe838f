#include "mnemosyne/nn/position_metadata.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <type_traits>

#include "mnemosyne/nn/fourier_position.h"
#include "mnemosyne/nn/position_fields.h"

namespace mnemosyne::nn {
namespace {

template <typename Options>
std::string to_json(const char* type, Options options) {
  nlohmann::json json = {{"type", type}};
  for_each_field(options, [&](const char* name, const auto& value) {
    if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::optional<double>>) {
      json[name] = value.has_value() ? nlohmann::json(*value) : nlohmann::json();
    } else {
      json[name] = value;
    }
  });
  return json.dump();
}

}  // namespace

std::map<std::string, std::string> position_metadata(const torch::nn::Module& model) {
  std::map<std::string, std::string> metadata;
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    const torch::nn::Module* module = item.value().get();
    if (const auto* fourier = dynamic_cast<const FourierPositionImpl*>(module)) {
      metadata["position." + item.key()] = to_json("FourierPosition", fourier->options());
    } else if (const auto* damped = dynamic_cast<const DampedPositionImpl*>(module)) {
      metadata["position." + item.key()] = to_json("DampedPosition", damped->options());
    }
  }
  return metadata;
}

}  // namespace mnemosyne::nn
