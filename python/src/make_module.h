#pragma once

#include <torch/csrc/utils/pybind.h>

#include <memory>
#include <string>

#include "module_handle.h"

namespace mnemosyne::python {

/// The module of the library called `kind`, from plain values: dictionaries of options. InputError
/// for a kind that there is none of, and for other options than it has.
std::shared_ptr<ModuleHandle> make_module(const std::string& kind, const py::args& arguments);

/// The arguments of `make_module` that give a module of the same options, seed and all.
py::tuple arguments_of(const ModuleHandle& handle);

}  // namespace mnemosyne::python
