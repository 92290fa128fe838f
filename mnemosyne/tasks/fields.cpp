#include "mnemosyne/tasks/fields.h"

#include <charconv>
#include <system_error>

#include "mnemosyne/tasks/data/utf8.h"

namespace mnemosyne::tasks {
namespace {

bool is_blank(uint32_t point) {
  return point == ' ' || (point >= '\t' && point <= '\r') || (point >= 0x1c && point <= 0x1f) ||
         point == 0x85 || point == 0xa0 || point == 0x1680 ||
         (point >= 0x2000 && point <= 0x200a) || point == 0x2028 || point == 0x2029 ||
         point == 0x202f || point == 0x205f || point == 0x3000;
}

/// from_chars takes no sign "+", and accepts "nan(...)".
std::optional<std::string_view> without_plus(std::string_view text) {
  if (text.find('(') != std::string_view::npos) return std::nullopt;
  if (!text.starts_with('+')) return text;
  text.remove_prefix(1);
  if (text.starts_with('-')) return std::nullopt;
  return text;
}

template <typename Number>
std::optional<Number> parse(std::string_view text) {
  const std::optional<std::string_view> digits = without_plus(text);
  if (!digits) return std::nullopt;
  Number value = 0;
  const char* end = digits->data() + digits->size();
  const auto [stopped, error] = std::from_chars(digits->data(), end, value);
  if (error != std::errc() || stopped != end) return std::nullopt;
  return value;
}

}  // namespace

size_t blank_size(std::string_view text) {
  const std::optional<Utf8Character> first = first_character(text);
  return first && is_blank(first->point) ? first->length : 0;
}

std::string_view trimmed(std::string_view text) {
  while (const size_t size = blank_size(text)) text.remove_prefix(size);
  size_t end = 0;  // of the last character that is no blank
  for (size_t i = 0; i < text.size();) {
    const size_t size = blank_size(text.substr(i));
    i += size == 0 ? 1 : size;
    if (size == 0) end = i;
  }
  return text.substr(0, end);
}

std::vector<std::string_view> split_words(std::string_view text, size_t most) {
  std::vector<std::string_view> words;
  while (words.size() < most) {
    while (const size_t size = blank_size(text)) text.remove_prefix(size);
    if (text.empty()) break;
    size_t length = 1;
    while (length < text.size() && blank_size(text.substr(length)) == 0) ++length;
    words.push_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return words;
}

std::optional<double> parse_number(std::string_view text) { return parse<double>(text); }

std::optional<int64_t> parse_integer(std::string_view text) { return parse<int64_t>(text); }

}  // namespace mnemosyne::tasks
