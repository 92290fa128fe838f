#include "mnemosyne/core/fields.h"

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "mnemosyne/core/choices.h"

namespace mnemosyne {
namespace {

using Json = nlohmann::json;

// One after the other; g++ 12 warns of + where there is nothing to warn of.
std::string joined(std::initializer_list<std::string_view> parts) {
  std::string text;
  for (const std::string_view part : parts) text.append(part);
  return text;
}

std::string expectation(const bool*) { return "true or false"; }
std::string expectation(const int64_t*) { return "a whole number"; }
std::string expectation(const uint64_t*) { return "a whole number of 0 or more"; }
std::string expectation(const double*) { return "a number"; }
std::string expectation(const std::string*) { return "a string"; }

template <typename T>
std::string expectation(const std::optional<T>*) {
  return joined({expectation(static_cast<const T*>(nullptr)), " or null"});
}

template <typename T>
std::string expectation(const std::vector<T>*) {
  return joined({"a list, each of it ", expectation(static_cast<const T*>(nullptr))});
}

// Sets the value, unless the JSON is of another type.
bool read(const Json& json, bool& value) {
  if (!json.is_boolean()) return false;
  value = json.get<bool>();
  return true;
}

bool read(const Json& json, int64_t& value) {
  constexpr auto kLargest = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (!json.is_number_integer()) return false;
  if (json.is_number_unsigned() && json.get<uint64_t>() > kLargest) return false;
  value = json.get<int64_t>();
  return true;
}

bool read(const Json& json, uint64_t& value) {
  if (!json.is_number_unsigned()) return false;
  value = json.get<uint64_t>();
  return true;
}

bool read(const Json& json, double& value) {
  if (!json.is_number()) return false;
  value = json.get<double>();
  return true;
}

bool read(const Json& json, std::string& value) {
  if (!json.is_string()) return false;
  value = json.get<std::string>();
  return true;
}

template <typename T>
bool read(const Json& json, std::optional<T>& value) {
  T inner{};
  const bool none = json.is_null();
  if (!none && !read(json, inner)) return false;
  value = none ? std::nullopt : std::optional<T>(inner);
  return true;
}

template <typename T>
bool read(const Json& json, std::vector<T>& values) {
  std::vector<T> all(json.is_array() ? json.size() : 0);
  if (!json.is_array()) return false;
  for (size_t i = 0; i < all.size(); ++i) {
    if (!read(json[i], all[i])) return false;
  }
  values = std::move(all);
  return true;
}

template <typename T>
Json to_json(const T& value) {
  return value;
}

template <typename T>
Json to_json(const std::optional<T>& value) {
  return value.has_value() ? Json(*value) : Json();
}

std::string text_of(const Field& field) {
  return std::visit([](const auto* value) { return to_json(*value).dump(); }, field.value);
}

}  // namespace

std::vector<std::string> Fields::names() const {
  std::vector<std::string> result;
  for (const Field& field : list_) result.push_back(field.name);
  return result;
}

void Fields::add(Field field) {
  for (const Field& other : list_) {
    if (other.name == field.name) throw std::logic_error("two fields are called " + field.name);
  }
  list_.push_back(std::move(field));
}

void read_json(const std::string& where, const std::string& json, const Fields& fields) {
  constexpr size_t kShown = 80;
  const Json object = Json::parse(json, /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) {
    refuse(where, "options as a JSON object",
           joined({"\"", std::string_view(json).substr(0, kShown), "\""}));
  }
  for (const Field& field : fields) {
    const auto found = object.find(field.name);
    if (found == object.end()) continue;
    std::visit(
        [&](auto* value) {
          if (read(*found, *value)) return;
          refuse(where, joined({"option \"", field.name, "\" to be ", expectation(value)}),
                 found->dump().substr(0, kShown));
        },
        field.value);
  }
  std::vector<std::string> known = fields.names();
  std::sort(known.begin(), known.end());
  for (const auto& [key, unused] : object.items()) {
    if (std::binary_search(known.begin(), known.end(), key)) continue;
    refuse(where, known.empty() ? "no options" : "options among " + listed(known),
           joined({"\"", std::string_view(key).substr(0, kShown), "\""}));
  }
}

std::string write_json(const Fields& fields, const Fields& defaults) {
  std::map<std::string, std::string> texts;
  for (const Field& field : fields) texts[field.name] = text_of(field);
  for (const Field& field : defaults) {
    if (field.later && texts.at(field.name) == text_of(field)) texts.erase(field.name);
  }
  std::string all;
  for (const auto& [name, text] : texts) {
    all += (all.empty() ? "" : ", ") + Json(name).dump() + ": " + text;
  }
  return "{" + all + "}";
}

}  // namespace mnemosyne
