#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "mnemosyne/io/byte_source.h"
#include "mnemosyne/tasks/data/utf8.h"

namespace mnemosyne::tasks {

/// The words of a text in UTF-8, however long its lines are. Blanks (space, tab, vertical tab, form
/// feed) stand between words; "\n", "\r\n" and "\r" end a line; every other character belongs to a
/// word. A byte order mark at the start is skipped.
///
///     std::string word;
///     while (words.next(word)) word.empty() ? end_of_line() : use(word);
///
/// InputError that names file and line for what is not UTF-8 and for words of more than 1,024
/// bytes.
class WordReader {
 public:
  explicit WordReader(std::unique_ptr<io::ByteSource> source);

  /// The next word, or an empty one where a line ends; false at the end of the file. The last line
  /// needs no end of its own.
  bool next(std::string& word);

  /// "line 12 of PATH", for errors.
  std::string place() const;

 private:
  bool peek();
  void take();
  void refill();
  void read_word(std::string& word);

  std::unique_ptr<io::ByteSource> source_;
  std::string buffer_;  // From at_ on it is read but not yet given out.
  size_t at_ = 0;
  bool source_ended_ = false, line_started_ = false;
  Utf8Character front_;
  ZeroBytes zeros_;
  int64_t line_ = 1;
};

}  // namespace mnemosyne::tasks
