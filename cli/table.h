#pragma once

#include <string>
#include <vector>

namespace mnemosyne::cli {

/// A table that reads well on a terminal and is Markdown at the same time: columns of one width,
/// the first ones to the left, numbers to the right.
class Table {
 public:
  /// `left_columns`: how many columns, from the first one on, hold text.
  explicit Table(std::vector<std::string> head, size_t left_columns = 1);

  void add(std::vector<std::string> row);

  /// Lines with a newline after each.
  std::string text() const;

 private:
  size_t left_columns_;
  std::vector<std::vector<std::string>> rows_;  // the head first
};

/// A number for a table: four significant digits, "-" for NaN, "inf".
std::string number(double value, int digits = 4);

}  // namespace mnemosyne::cli
