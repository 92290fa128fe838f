#include "mnemosyne/tasks/data/xyz_comment.h"

#include <utility>

#include "mnemosyne/tasks/fields.h"

namespace mnemosyne::tasks {
namespace {

/// A key and what stands between the "=" behind it.
using Parts = std::vector<std::string>;

char closing_of(char c) {
  switch (c) {
    case '\'':
    case '"':
      return c;
    case '{':
      return '}';
    case '[':
      return ']';
    default:
      return '\0';
  }
}

/// "=" belongs to the entry before it when white space has already begun a new one.
bool begin_value(std::vector<Parts>& entries) {
  if (entries.back() == Parts{""}) entries.pop_back();
  if (entries.empty()) return false;
  entries.back().emplace_back();
  return true;
}

CommentEntry to_entry(Parts& parts) {
  CommentEntry entry{.key = std::move(parts[0]), .value = {}};
  if (parts.size() > 1) entry.value = std::move(parts[1]);
  for (size_t i = 2; i < parts.size(); ++i) *entry.value += "=" + parts[i];
  return entry;
}

}  // namespace

std::optional<std::vector<CommentEntry>> parse_comment(std::string_view comment) {
  std::vector<Parts> entries{{""}};
  char closing = '\0';
  bool escaped = false;
  comment = trimmed(comment);
  while (!comment.empty()) {
    const char c = comment[0];
    size_t size = 1;
    if (escaped) {
      entries.back().back() += c;
      escaped = false;
    } else if (c == '\\') {
      escaped = true;
    } else if (closing != '\0') {
      if (c == closing) {
        closing = '\0';
      } else {
        entries.back().back() += c;
      }
    } else if (closing_of(c) != '\0') {
      closing = closing_of(c);
    } else if (const size_t blank = blank_size(comment)) {
      size = blank;
      if (!entries.back().back().empty()) entries.push_back({""});
    } else if (c == '=') {
      if (!begin_value(entries)) return std::nullopt;
    } else {
      entries.back().back() += c;
    }
    comment.remove_prefix(size);
  }
  std::vector<CommentEntry> result;
  for (Parts& parts : entries) result.push_back(to_entry(parts));
  return result;
}

}  // namespace mnemosyne::tasks
