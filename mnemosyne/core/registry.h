#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "mnemosyne/core/choices.h"

namespace mnemosyne {

/// Names to factories: how everything that is selectable by name is looked up.
///
/// A registry is filled from one explicit list next to the type that it makes (`optim/rules.cpp`,
/// `tasks/registry.cpp`), so that a reader finds every entry in one place and no linker drops one.
///
///     Registry<UpdateRule()> rules("optimizer", {{"sgd", make_sgd}, {"adam", make_adam}});
///     auto rule = rules.get("adam")();
template <typename Signature>
class Registry {
 public:
  using Factory = std::function<Signature>;

  Registry(std::string kind, std::map<std::string, Factory> factories)
      : kind_(std::move(kind)), factories_(std::move(factories)) {}

  /// The factory called `name`. Throws InputError that lists the known names.
  const Factory& get(const std::string& name) const {
    const auto found = factories_.find(name);
    if (found != factories_.end()) return found->second;
    refuse_choice(kind_, name, names());
  }

  bool contains(const std::string& name) const { return factories_.count(name) != 0; }

  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (const auto& [key, unused] : factories_) result.push_back(key);
    return result;
  }

 private:
  std::string kind_;
  std::map<std::string, Factory> factories_;
};

}  // namespace mnemosyne
