#include "table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace mnemosyne::cli {

Table::Table(std::vector<std::string> head, size_t left_columns) : left_columns_(left_columns) {
  rows_.push_back(std::move(head));
}

void Table::add(std::vector<std::string> row) {
  row.resize(rows_.front().size());
  rows_.push_back(std::move(row));
}

std::string Table::text() const {
  std::vector<size_t> widths(rows_.front().size(), 3);
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (size_t r = 0; r < rows_.size(); ++r) {
    for (size_t i = 0; i < widths.size(); ++i) {
      text += i < left_columns_ ? fmt::format("| {:<{}} ", rows_[r][i], widths[i])
                                : fmt::format("| {:>{}} ", rows_[r][i], widths[i]);
    }
    text += "|\n";
    if (r > 0) continue;
    for (size_t i = 0; i < widths.size(); ++i) {
      const std::string dashes(widths[i] + 1, '-');
      text += i < left_columns_ ? "|" + dashes + "-" : "|" + dashes + ":";
    }
    text += "|\n";
  }
  return text;
}

std::string number(double value, int digits) {
  if (std::isnan(value)) return "-";
  return fmt::format("{:.{}g}", value, digits);
}

}  // namespace mnemosyne::cli
