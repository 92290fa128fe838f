#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "mnemosyne/io/byte_source.h"

namespace mnemosyne::io {

/// The regular files of a tar archive (POSIX ustar, GNU and pax, whose long names and extended
/// headers, global ones too, are followed), one after the other. Other entries (folders, links) are
/// passed over; nothing is ever written to disk, so that their names are no danger.
///
///     io::TarReader archive(io::open_unpacked("qm7.tar.xz"));
///     while (archive.next()) parse(archive.content(), archive.member());
///
/// InputError that names archive and member when a header is not one, the archive ends inside a
/// file, a file is a sparse one, a name is longer than 1 MiB, or all members together are larger
/// than 4 GiB.
class TarReader {
 public:
  explicit TarReader(std::unique_ptr<ByteSource> source);

  /// On to the next file; false at the end of the archive.
  bool next();

  /// The current file's path inside the archive, as the headers have it.
  const std::string& member() const { return member_; }

  /// The current file's bytes; refused when there are more than `max_bytes` of them. To be asked
  /// for once.
  std::string content(size_t max_bytes);

 private:
  /// What the headers before a file say in place of its own.
  struct Extension {
    std::string path;
    std::optional<uint64_t> size;
    bool sparse = false;
  };

  [[noreturn]] void refuse(const std::string& expected, const std::string& found) const;
  bool read_header(char* header);
  uint64_t size_of(const char* header) const;
  bool extend(const char* header, Extension& own);
  bool start_file(const char* header, const Extension& own);
  void read_records(std::string_view records, Extension& extension) const;
  std::string take(uint64_t size);
  void skip(uint64_t size);
  void account(uint64_t size);

  std::unique_ptr<ByteSource> source_;
  std::string member_;
  Extension global_;
  uint64_t left_ = 0, padding_ = 0, total_ = 0;
};

}  // namespace mnemosyne::io
