#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace mnemosyne::io {

/// Bytes that come one piece after the other, so that a reader needs memory for what it looks at
/// and not for the whole file.
class ByteSource {
 public:
  virtual ~ByteSource() = default;

  /// Fills `buffer` with up to `size` bytes (at least one) and returns how many; 0 at the end.
  /// InputError that names the file when it cannot be read or is damaged.
  virtual size_t read(char* buffer, size_t size) = 0;

  /// What errors call the source: its path.
  virtual const std::string& name() const = 0;
};

/// A file as it is. InputError when it cannot be read.
std::unique_ptr<ByteSource> open_plain(const std::string& path);

/// Bytes in memory under a name for errors.
std::unique_ptr<ByteSource> open_bytes(std::string bytes, std::string name);

/// A file that may be packed with gzip or xz, told by its first bytes and not by its name, as its
/// unpacked content. InputError when it cannot be read, is damaged or ends too early, or when it is
/// an xz file and the library was built without liblzma.
///
///     io::LineReader lines(io::open_unpacked("data/wikitext2/wiki.train.tokens"));
std::unique_ptr<ByteSource> open_unpacked(const std::string& path);

/// What is read into memory at most where nobody says otherwise: 1 GiB.
inline constexpr size_t kLargestData = size_t{1} << 30;

/// All that is left of a source, in memory; InputError when it is more than `max_bytes`.
std::string read_all(ByteSource& source, size_t max_bytes = kLargestData);

/// A whole file, unpacked as by `open_unpacked`; InputError also when its content is more than
/// `max_bytes`.
///
///     std::string text = io::read_unpacked("data/tinyshakespeare/input.txt");
std::string read_unpacked(const std::string& path, size_t max_bytes = kLargestData);

}  // namespace mnemosyne::io
