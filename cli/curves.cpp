#include <fmt/format.h>

#include "command.h"
#include "python.h"

namespace mnemosyne::cli {

void draw_curves(const std::string& folder) {
  const std::string python = find_python();
  if (!python.empty() && run_module(python, "mnemosyne.plot", {folder}) == 0) return;
  fmt::print(stderr, "mnemosyne: the picture is made by: python -m mnemosyne.plot {}\n", folder);
}

}  // namespace mnemosyne::cli
