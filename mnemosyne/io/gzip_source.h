#pragma once

#include <memory>

#include "mnemosyne/io/byte_source.h"

namespace mnemosyne::io {

/// The content of gzip data, of several members one after the other too; zeros behind a member are
/// padding. Reading refuses data that are corrupt, end too early, or are followed by something
/// else.
std::unique_ptr<ByteSource> unpack_gzip(std::unique_ptr<ByteSource> packed);

}  // namespace mnemosyne::io
