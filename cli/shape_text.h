#pragma once

#include <ATen/core/Tensor.h>

#include <sstream>
#include <string>

namespace mnemosyne::cli {

/// "[2, 3]".
inline std::string shape_text(const at::Tensor& tensor) {
  std::ostringstream text;
  text << tensor.sizes();
  return text.str();
}

}  // namespace mnemosyne::cli
