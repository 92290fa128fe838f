#include "mnemosyne/io/line_reader.h"

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
    size_t length = rest.find('\n', searched);
    const bool complete = length != std::string_view::npos;
    if (!complete) length = rest.size();
    if (length > kLongestLine) {
      throw InputError("[data] expected lines of at most 1 MiB, got a longer one: " + place());
    }
    searched = rest.size();
    if (!complete && refill()) continue;
    line = std::string_view(buffer_.data() + begin_, length);
    if (!complete && length == 0) {
      --number_;
      return false;
    }
    begin_ += length + (complete ? 1 : 0);
    if (line.find('\0') != std::string_view::npos) {
      throw InputError("[data] expected text, got a zero byte in " + place());
    }
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    return true;
  }
}

std::string LineReader::place() const {
  return "line " + std::to_string(number_) + " of " + source_->name();
}

}  // namespace mnemosyne::io
