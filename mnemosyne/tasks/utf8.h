#pragma once

#include <string_view>

namespace mnemosyne::tasks {

/// Whether the bytes are well-formed UTF-8 (RFC 3629: no overlong forms, no surrogates) without
/// control characters other than tab, vertical tab and form feed.
bool is_utf8(std::string_view bytes);

}  // namespace mnemosyne::tasks
