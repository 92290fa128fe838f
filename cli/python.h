#pragma once

#include <string>
#include <vector>

namespace mnemosyne::cli {

/// The Python that imports the package: that of the environment this program was called from
/// (ENV/bin/mnemosyne beside ENV/bin/python), or the one that started it. Empty if there is none.
std::string find_python();

/// Runs `python -m MODULE ARGUMENTS...` and waits; its exit status, or 1 when it could not run.
int run_module(const std::string& python, const std::string& module,
               const std::vector<std::string>& arguments);

}  // namespace mnemosyne::cli
