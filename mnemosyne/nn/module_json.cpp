#include "mnemosyne/nn/module_json.h"

#include <nlohmann/json.hpp>
#include <string>
#include <type_traits>
#include <vector>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/fields.h"
#include "mnemosyne/nn/linear_attention.h"
#include "mnemosyne/nn/softmax_attention.h"

namespace mnemosyne::nn {
namespace {

using Json = nlohmann::json;
using Module = std::shared_ptr<torch::nn::Module>;

template <typename Options>
Options options_of(const Json& json) {
  return read_options<Options>("module", json.dump());
}

/// Null, or options with a type.
AnyPosition read_position(Json json) {
  AnyPosition position;
  if (json.is_null()) return position;
  const std::string type = json.at("type").get<std::string>();
  json.erase("type");
  std::vector<std::string> types;
  for_each_position([&](const auto& defaults) {
    types.emplace_back(defaults.kNames.type);
    if (type == types.back()) position = options_of<std::decay_t<decltype(defaults)>>(json);
  });
  one_of("module", type, types, "type");
  return position;
}

template <typename Impl, typename Options>
Module make_position_module(const Json& arguments) {
  return std::make_shared<Impl>(options_of<Options>(arguments.at(0)));
}

template <typename Impl, typename Options>
Module make_attention_module(const Json& arguments) {
  Options options = options_of<Options>(arguments.at(0));
  options.position = read_position(arguments.at(1));
  return std::make_shared<Impl>(options);
}

using Maker = Module (*)(const Json& arguments);

const Choices<Maker>& makers() {
  static const Choices<Maker> all = {
      {"DampedPosition", make_position_module<DampedPositionImpl, DampedPositionOptions>},
      {"FourierPosition", make_position_module<FourierPositionImpl, FourierPositionOptions>},
      {"LinearAttention", make_attention_module<LinearAttentionImpl, LinearAttentionOptions>},
      {"SoftmaxAttention", make_attention_module<SoftmaxAttentionImpl, SoftmaxAttentionOptions>}};
  return all;
}

}  // namespace

std::shared_ptr<torch::nn::Module> module_of_json(const std::string& text) {
  try {
    const Json json = Json::parse(text);
    return one_of("module", json.at("type").get<std::string>(), makers())(json.at("arguments"));
  } catch (const Json::exception&) {
    refuse("module", "a JSON object of a type and its arguments", in_quotes(text));
  }
}

}  // namespace mnemosyne::nn
