#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mnemosyne {

/// The content of a file that was compiled into the library; empty when there is none of that name.
///
/// Embedded are every `weights/*.safetensors` under its file name and, where scikit-learn was
/// installed when the library was configured, its handwritten digits as "digits.csv.gz". The bytes
/// live as long as the program and start at a multiple of 64.
///
///     std::string_view weights = embedded_file("mnemosyne.safetensors");
std::string_view embedded_file(const std::string& name);

/// The names that `embedded_file` knows, sorted.
std::vector<std::string> embedded_files();

}  // namespace mnemosyne
