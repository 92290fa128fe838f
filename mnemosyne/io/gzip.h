#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace mnemosyne::io {

/// What `read_plain_or_gzip` takes at most, before and after unpacking: 1 GiB.
inline constexpr size_t kLargestData = size_t{1} << 30;

/// The content of `bytes`, unpacked when they start with gzip's magic number (several gzip members
/// one after the other included, zeros behind a member passed over), and as they are otherwise.
/// `name` is what errors call the source. InputError when the gzip data are corrupt or end too
/// early, are followed by something else, or unpack to more than `max_bytes`.
std::string unpack_gzip(std::string_view bytes, const std::string& name,
                        size_t max_bytes = kLargestData);

/// A whole file, plain or gzip, told apart by its first bytes and not by its name. InputError as
/// above, and when the file cannot be read or is itself larger than `max_bytes`.
///
///     std::string text = io::read_plain_or_gzip("data/tinyshakespeare/input.txt");
std::string read_plain_or_gzip(const std::string& path, size_t max_bytes = kLargestData);

}  // namespace mnemosyne::io
