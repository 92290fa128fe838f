#include "bindings.h"

#include <c10/util/Exception.h>
#include <torch/version.h>

#include "mnemosyne/version.h"

#define MN_TEXT_OF(x) #x
#define MN_TEXT(x) MN_TEXT_OF(x)

PYBIND11_MODULE(_C, module) {
  module.doc() = "The C++ library behind the package mnemosyne: tensors in, tensors out.";
  module.attr("__version__") = MN_TEXT(MNEMOSYNE_VERSION_MAJOR) "." MN_TEXT(
      MNEMOSYNE_VERSION_MINOR) "." MN_TEXT(MNEMOSYNE_VERSION_PATCH);
  module.attr("torch_version") = TORCH_VERSION;

  // InputError is an invalid_argument, which pybind11 turns into ValueError by itself.
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const c10::Error& error) {
      PyErr_SetString(PyExc_RuntimeError, error.what_without_backtrace());
    }
  });

  mnemosyne::python::bind_optim(module);
  mnemosyne::python::bind_nn(module);
}
