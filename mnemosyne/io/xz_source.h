#pragma once

#include <memory>

#include "mnemosyne/io/byte_source.h"

namespace mnemosyne::io {

/// The content of xz data, by liblzma. Reading refuses data that are corrupt, end too early, or ask
/// for more than 128 MiB of memory (xz -9 asks for 65). Without liblzma at build time every xz file
/// is refused with a line that says so.
std::unique_ptr<ByteSource> unpack_xz(std::unique_ptr<ByteSource> packed);

/// Whether the library was built with liblzma.
bool has_xz();

}  // namespace mnemosyne::io
