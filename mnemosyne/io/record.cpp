#include "mnemosyne/io/record.h"

#include <nlohmann/json.hpp>

namespace mnemosyne::io {

std::string to_json(const Record& record) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& [name, value] : record) {
    std::visit([&, key = name](const auto& content) { json[key] = content; }, value);
  }
  return json.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
}

std::string to_json(const std::vector<Record>& records, const std::string& separator) {
  std::string text;
  for (const Record& record : records) text += (text.empty() ? "" : separator) + to_json(record);
  return "[" + text + "]";
}

std::string to_json(const std::vector<std::string>& texts) {
  return nlohmann::json(texts).dump(-1, ' ', /*ensure_ascii=*/true,
                                    nlohmann::json::error_handler_t::replace);
}

}  // namespace mnemosyne::io
