#pragma once

#include <torch/csrc/utils/pybind.h>

#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/fields.h"

namespace mnemosyne::python {

inline std::string text_of(const py::handle& value) { return std::string(py::str(value)); }

/// Sets the fields that a dictionary has; ValueError for a name that there is no field of and for a
/// value of another type.
inline void read_fields(const py::dict& given, const Fields& fields) {
  for (const Field& field : fields) {
    if (!given.contains(field.name)) continue;
    const py::object value = given[py::str(field.name)];
    try {
      std::visit([&](auto* own) { *own = py::cast<std::decay_t<decltype(*own)>>(value); },
                 field.value);
    } catch (const py::cast_error&) {
      refuse(field.name, "a value of another type", text_of(py::repr(value)));
    }
  }
  const std::vector<std::string> known = fields.names();
  for (const auto& item : given) one_of("options", text_of(item.first), known);
}

/// Options of the type from a dictionary with some of their names. The others are those of
/// `options`.
template <typename Options>
Options read_options(const py::dict& given, Options options = {}) {
  read_fields(given, fields_of(options));
  return options;
}

template <typename Options>
py::dict write_options(Options options) {
  py::dict result;
  for (const Field& field : fields_of(options)) {
    result[py::str(field.name)] =
        std::visit([](const auto* value) { return py::cast(*value); }, field.value);
  }
  return result;
}

}  // namespace mnemosyne::python
