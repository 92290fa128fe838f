#include "mnemosyne/io/line_reader.h"

#include <algorithm>
#include <utility>

#include "mnemosyne/core/error.h"

namespace mnemosyne::io {
namespace {

constexpr size_t kPiece = 1 << 16, kLongestLine = 1 << 20;

}  // namespace

LineReader::LineReader(std::unique_ptr<ByteSource> source) : source_(std::move(source)) {}

// Makes room behind what is left and reads one more piece.
bool LineReader::refill() {
  buffer_.erase(0, begin_);
  end_ -= begin_;
  begin_ = 0;
  buffer_.resize(end_ + kPiece);
  const size_t count = source_->read(buffer_.data() + end_, kPiece);
  end_ += count;
  return count > 0;
}

bool LineReader::next(std::string_view& line) {
  size_t searched = 0;
  ++number_;
  while (true) {
    const std::string_view rest(buffer_.data() + begin_, end_ - begin_);
    const auto ends = [](char c) { return c == '\n' || c == '\r'; };
    const auto length =
        static_cast<size_t>(std::find_if(rest.begin() + searched, rest.end(), ends) - rest.begin());
    if (length > kLongestLine) {
      throw InputError("[data] expected lines of at most 1 MiB, got a longer one: " + place());
    }
    // The "\n" of a "\r" at the end of what is read may be still to come.
    const bool whole = length < rest.size() && (rest[length] == '\n' || length + 1 < rest.size());
    searched = length;
    if (!whole && refill()) continue;
    const std::string_view text(buffer_.data() + begin_, end_ - begin_);
    if (text.empty()) {
      --number_;
      return false;
    }
    line = text.substr(0, length);
    begin_ += length + (text.substr(length, 2) == "\r\n" ? 2 : length < text.size() ? 1 : 0);
    if (line.find('\0') != std::string_view::npos) {
      throw InputError("[data] expected text, got a zero byte in " + place());
    }
    return true;
  }
}

std::string LineReader::place() const {
  return "line " + std::to_string(number_) + " of " + source_->name();
}

}  // namespace mnemosyne::io
