#include "mnemosyne/nn/position/positions.h"

#include <type_traits>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/nn/attention_options.h"

namespace mnemosyne::nn {
namespace {

std::string kind_of(bool linear) { return linear ? "linear" : "softmax"; }

}  // namespace

std::shared_ptr<const Position> make_any_position(const AnyPosition& options, bool linear,
                                                  const PositionSite& site) {
  return std::visit(
      [&](const auto& own) -> std::shared_ptr<const Position> {
        using Options = std::decay_t<decltype(own)>;
        if constexpr (std::is_same_v<Options, std::monostate>) {
          return std::make_shared<NoPosition>();
        } else {
          if (!Options::kNames.is_for(linear)) {
            refuse("attention", kind_of(!linear) + " attention for " + Options::kNames.name,
                   kind_of(linear));
          }
          return make_position(own, site);
        }
      },
      options);
}

std::vector<std::string> position_names(bool linear) {
  std::vector<std::string> names{"none", "absolute"};
  for_each_position([&](const auto& options) {
    if (options.kNames.is_for(linear)) names.emplace_back(options.kNames.name);
  });
  return names;
}

AnyPosition chosen_position(const AttentionOptions& options, const AttentionSite& site) {
  AnyPosition result;
  for_each_position([&](auto own) {
    if (options.position != own.kNames.name) return;
    choose(options, site, own);
    result = own;
  });
  return result;
}

}  // namespace mnemosyne::nn
