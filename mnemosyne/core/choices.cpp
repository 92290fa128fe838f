#include "mnemosyne/core/choices.h"

#include <algorithm>
#include <cstdio>
#include <sstream>

#include "mnemosyne/core/error.h"

namespace mnemosyne {

void refuse(const std::string& where, const std::string& expected, const std::string& got) {
  throw InputError("[" + where + "] expected " + expected + ", got " + got);
}

void check_option(bool holds, const std::string& where, const std::string& expected, double value) {
  if (holds) return;
  std::ostringstream got;
  got << value;
  refuse(where, expected, got.str());
}

std::string in_quotes(std::string_view text) {
  constexpr size_t kLongest = 60;
  std::string result = "\"";
  for (const char c : text.substr(0, kLongest)) {
    if (c >= ' ' && c <= '~' && c != '"' && c != '\\') {
      result += c;
    } else {
      char escaped[5];
      std::snprintf(escaped, sizeof escaped, "\\x%02x", static_cast<unsigned char>(c));
      result += escaped;
    }
  }
  return result + (text.size() > kLongest ? "...\"" : "\"");
}

std::string listed(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list;
}

void refuse_choice(const std::string& where, std::string_view name,
                   const std::vector<std::string>& known, const std::string& what) {
  const std::string before = what.empty() ? "one of " : what + " to be one of ";
  refuse(where, before + listed(known), in_quotes(name));
}

void one_of(const std::string& where, std::string_view name, const std::vector<std::string>& known,
            const std::string& what) {
  if (std::find(known.begin(), known.end(), name) == known.end()) {
    refuse_choice(where, name, known, what);
  }
}

}  // namespace mnemosyne
