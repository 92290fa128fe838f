#pragma once

#include <torch/csrc/utils/pybind.h>

#include <string>
#include <type_traits>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/module_fields.h"
#include "mnemosyne/nn/position/position_fields.h"

namespace mnemosyne::python {

inline std::string text_of(const py::handle& value) { return std::string(py::str(value)); }

[[noreturn]] inline void refuse_option(const std::string& known, const std::string& name) {
  throw InputError("[options] expected one of " + known + ", got \"" + name + "\"");
}

/// Options of the type from a dictionary with some of their names; ValueError for a name that they
/// do not have and for a value of another type. The others are those of `options`.
template <typename Options>
Options read_options(const py::dict& given, Options options = {}) {
  std::string known;
  py::dict rest = given.attr("copy")();
  nn::for_each_field(options, [&](const char* name, auto& field) {
    known += (known.empty() ? "" : ", ") + std::string(name);
    if (!rest.contains(name)) return;
    const py::object value = rest.attr("pop")(name);
    try {
      field = py::cast<std::decay_t<decltype(field)>>(value);
    } catch (const py::cast_error&) {
      throw InputError("[" + std::string(name) + "] expected a value of another type, got " +
                       text_of(py::repr(value)));
    }
  });
  for (const auto& item : rest) refuse_option(known, text_of(item.first));
  return options;
}

template <typename Options>
py::dict write_options(Options options) {
  py::dict result;
  nn::for_each_field(options, [&](const char* name, auto& field) { result[name] = field; });
  return result;
}

}  // namespace mnemosyne::python
