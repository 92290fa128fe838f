#include "mnemosyne/optim/rule_options.h"

#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "mnemosyne/core/error.h"

namespace mnemosyne::optim {

using Json = nlohmann::json;

struct OptionReader::Impl {
  std::string rule_name;
  Json object;
  std::set<std::string> known;

  const Json* find(const std::string& name) {
    known.insert(name);
    const auto found = object.find(name);
    return found == object.end() ? nullptr : &*found;
  }

  [[noreturn]] void fail(const std::string& name, const std::string& expected,
                         const Json& got) const {
    throw InputError("[" + rule_name + "] expected option \"" + name + "\" to be " + expected +
                     ", got " + got.dump().substr(0, 80));
  }
};

OptionReader::OptionReader(std::string rule_name, const std::string& json)
    : impl_(std::make_unique<Impl>()) {
  impl_->rule_name = std::move(rule_name);
  impl_->object = Json::parse(json, /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (!impl_->object.is_object()) {
    throw InputError("[" + impl_->rule_name + "] expected options as a JSON object, got \"" +
                     json.substr(0, 80) + "\"");
  }
}

OptionReader::~OptionReader() = default;

void OptionReader::operator()(const std::string& name, bool& value) {
  const Json* found = impl_->find(name);
  if (found == nullptr) return;
  if (!found->is_boolean()) impl_->fail(name, "true or false", *found);
  value = found->get<bool>();
}

void OptionReader::operator()(const std::string& name, int64_t& value) {
  const Json* found = impl_->find(name);
  if (found == nullptr) return;
  if (!found->is_number_integer()) impl_->fail(name, "a whole number", *found);
  value = found->get<int64_t>();
}

void OptionReader::operator()(const std::string& name, double& value) {
  const Json* found = impl_->find(name);
  if (found == nullptr) return;
  if (!found->is_number()) impl_->fail(name, "a number", *found);
  value = found->get<double>();
}

void OptionReader::operator()(const std::string& name, std::string& value) {
  const Json* found = impl_->find(name);
  if (found == nullptr) return;
  if (!found->is_string()) impl_->fail(name, "a string", *found);
  value = found->get<std::string>();
}

void OptionReader::finish() const {
  for (const auto& [key, unused] : impl_->object.items()) {
    if (impl_->known.count(key) != 0) continue;
    std::string names;
    for (const std::string& name : impl_->known) names += (names.empty() ? "" : ", ") + name;
    throw InputError("[" + impl_->rule_name + "] expected " +
                     (names.empty() ? "no options" : "options among " + names) + ", got \"" +
                     key.substr(0, 80) + "\"");
  }
}

void OptionWriter::operator()(const std::string& name, bool& value) {
  fields_[name] = value ? "true" : "false";
}

void OptionWriter::operator()(const std::string& name, int64_t& value) {
  fields_[name] = std::to_string(value);
}

void OptionWriter::operator()(const std::string& name, double& value) {
  fields_[name] = Json(value).dump();
}

void OptionWriter::operator()(const std::string& name, std::string& value) {
  fields_[name] = Json(value).dump();
}

std::string OptionWriter::json() const {
  std::string text;
  for (const auto& [name, value] : fields_) {
    text += (text.empty() ? "" : ", ") + Json(name).dump() + ": " + value;
  }
  return "{" + text + "}";
}

void check_option(bool holds, const std::string& rule_name, const std::string& expectation,
                  double value) {
  if (holds) return;
  std::ostringstream text;
  text << "[" << rule_name << "] expected " << expectation << ", got " << value;
  throw InputError(text.str());
}

}  // namespace mnemosyne::optim
