#include "mnemosyne/meta/named_number.h"

#include <cmath>
#include <cstdlib>

#include "mnemosyne/core/error.h"

namespace mnemosyne::meta {

NamedNumber parse_named_number(const std::string& text, const std::string& option,
                               std::optional<double> missing) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos && !text.empty() && missing) return {text, *missing};
  if (equals != std::string::npos && equals > 0 && equals + 1 < text.size()) {
    const char* begin = text.c_str() + equals + 1;
    char* end = nullptr;
    const double number = std::strtod(begin, &end);
    if (*end == '\0' && std::isfinite(number) && number >= 0)
      return {text.substr(0, equals), number};
  }
  throw InputError("[" + option + "] expected NAME=NUMBER with 0 or a positive number, got \"" +
                   text + "\"");
}

}  // namespace mnemosyne::meta
