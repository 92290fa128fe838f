#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mnemosyne {

/// Throws InputError "[where] expected ..., got ...": what every refusal of the library looks like.
[[noreturn]] void refuse(const std::string& where, const std::string& expected,
                         const std::string& got);

/// `refuse` with the value, unless `holds`.
void check_option(bool holds, const std::string& where, const std::string& expected, double value);

/// Text of a caller or a file in quotes, shortened and with everything but printable ASCII escaped:
/// safe to stand in an error of one line.
std::string in_quotes(std::string_view text);

/// "a, b, c".
std::string listed(const std::vector<std::string>& names);

/// Throws InputError "[where] expected one of a, b, c, got "x"", or, with `what`, "[where] expected
/// WHAT to be one of a, b, c, got "x"".
[[noreturn]] void refuse_choice(const std::string& where, std::string_view name,
                                const std::vector<std::string>& known,
                                const std::string& what = {});

/// `refuse_choice` unless the name is among those known.
void one_of(const std::string& where, std::string_view name, const std::vector<std::string>& known,
            const std::string& what = {});

/// Names and what they stand for, in the order in which errors list them.
template <typename Value>
using Choices = std::vector<std::pair<std::string, Value>>;

template <typename Value>
std::vector<std::string> names_of(const Choices<Value>& choices) {
  std::vector<std::string> names;
  for (const auto& [name, unused] : choices) names.push_back(name);
  return names;
}

/// What the name stands for; `refuse_choice` where it is none of the choices.
///
///     static const Choices<Shape> shapes = {{"box", Shape::kBox}, {"ball", Shape::kBall}};
///     const Shape shape = one_of("window", options.window, shapes);
template <typename Value>
Value one_of(const std::string& where, std::string_view name, const Choices<Value>& choices,
             const std::string& what = {}) {
  for (const auto& [known, value] : choices) {
    if (known == name) return value;
  }
  refuse_choice(where, name, names_of(choices), what);
}

}  // namespace mnemosyne
