#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "mnemosyne/core/choices.h"

namespace mnemosyne::io {

/// The whole content of a regular file. InputError that names the file when it cannot be read.
std::string read_file(const std::string& path);

/// Writes the pieces one after the other into a file beside `path` and renames it over `path`: at
/// any moment `path` holds the old content or the new, never a part of it. InputError when the
/// folder cannot be written to, std::runtime_error when the disk does not take all bytes.
void write_file(const std::string& path, const std::vector<std::string_view>& pieces);

using mnemosyne::in_quotes;

}  // namespace mnemosyne::io
