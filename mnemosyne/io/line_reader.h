#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "mnemosyne/io/byte_source.h"

namespace mnemosyne::io {

/// The lines of a text, one at a time, without their ends, which are "\n", "\r\n" or "\r" as for
/// Python. A line that is longer than 1 MiB or holds a zero byte is refused: what has one is no
/// text.
///
///     std::string_view line;
///     while (lines.next(line)) use(line);   // `line` is valid until the next call
class LineReader {
 public:
  explicit LineReader(std::unique_ptr<ByteSource> source);

  /// False at the end; the last line needs no end.
  bool next(std::string_view& line);

  /// "line 12 of PATH", the line that `next` gave last, for errors.
  std::string place() const;

  int64_t number() const { return number_; }
  const std::string& name() const { return source_->name(); }

 private:
  bool refill();

  std::unique_ptr<ByteSource> source_;
  std::string buffer_;  // [begin_, end_) is read but not yet given out.
  size_t begin_ = 0, end_ = 0;
  int64_t number_ = 0;
};

}  // namespace mnemosyne::io
