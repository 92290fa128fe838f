#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace mnemosyne::io {

using RecordValue = std::variant<bool, int64_t, double, std::string, std::vector<double>>;

/// Named values in a fixed order: one line of metrics, one row of a table of results.
using Record = std::vector<std::pair<std::string, RecordValue>>;

/// A JSON object in one line. NaN and infinities, which JSON does not have, become null.
std::string to_json(const Record& record);

/// A JSON list with `separator`, a comma and white space, between the records.
std::string to_json(const std::vector<Record>& records, const std::string& separator = ", ");

/// A JSON list of texts in one line, in ASCII.
std::string to_json(const std::vector<std::string>& texts);

}  // namespace mnemosyne::io
