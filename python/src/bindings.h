#pragma once

#include <torch/csrc/utils/pybind.h>

namespace mnemosyne::python {

/// Adds the update rules and the loading of their weights: what mnemosyne/optim.py is made of.
void bind_optim(py::module_& module);

/// Adds the attention modules, the positions and the models: what mnemosyne/nn is made of.
void bind_nn(py::module_& module);

}  // namespace mnemosyne::python
