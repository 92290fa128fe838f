#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "mnemosyne/io/byte_source.h"

namespace mnemosyne::io {

/// The regular files of a tar archive (POSIX ustar, GNU and pax), one after the other. Other
/// entries (folders, links) are passed over; nothing is ever written to disk, so that their names
/// are no danger.
///
///     io::TarReader archive(io::open_unpacked("qm7.tar.xz"));
///     while (archive.next()) parse(archive.content(), archive.member());
///
/// InputError that names archive and member when a header is not one, the archive ends inside a
/// file, or all members together are larger than 4 GiB.
class TarReader {
 public:
  explicit TarReader(std::unique_ptr<ByteSource> source);

  /// On to the next file; false at the end of the archive.
  bool next();

  /// The current file's path inside the archive, as the header has it (long names cut to their
  /// first 255 characters).
  const std::string& member() const { return member_; }

  /// The current file's bytes; refused when there are more than `max_bytes` of them. To be asked
  /// for once.
  std::string content(size_t max_bytes);

 private:
  [[noreturn]] void refuse(const std::string& expected, const std::string& found) const;
  bool read_header(char* header);
  std::string take(uint64_t size);
  void skip(uint64_t size);
  void account(uint64_t size);

  std::unique_ptr<ByteSource> source_;
  std::string member_;
  uint64_t left_ = 0, padding_ = 0, total_ = 0;
};

}  // namespace mnemosyne::io
