#pragma once

#include <cstdint>
#include <string_view>

namespace mnemosyne::io {

/// CRC-32C (Castagnoli polynomial, RFC 3720 appendix B.4), the checksum of TFRecord files and of
/// checkpoints. `before`: the checksum of bytes that stand before these.
uint32_t crc32c(std::string_view bytes, uint32_t before = 0);

}  // namespace mnemosyne::io
