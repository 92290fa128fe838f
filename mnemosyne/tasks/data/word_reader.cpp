#include "mnemosyne/tasks/data/word_reader.h"

#include <string_view>
#include <utility>

#include "mnemosyne/tasks/data/bytes.h"

namespace mnemosyne::tasks {
namespace {

constexpr size_t kPiece = 1 << 16, kLongestCharacter = 4, kLongestWord = 1024;
constexpr uint32_t kByteOrderMark = 0xfeff;

bool is_blank(uint32_t point) {
  return point == ' ' || point == '\t' || point == '\v' || point == '\f';
}

bool is_line_end(uint32_t point) { return point == '\n' || point == '\r'; }

}  // namespace

WordReader::WordReader(std::unique_ptr<io::ByteSource> source) : source_(std::move(source)) {
  if (peek() && front_.point == kByteOrderMark) at_ += front_.length;
}

// Reads on until a whole character is there or nothing is left.
void WordReader::refill() {
  buffer_.erase(0, at_);
  at_ = 0;
  while (!source_ended_ && buffer_.size() < kLongestCharacter) {
    const size_t kept = buffer_.size();
    buffer_.resize(kept + kPiece);
    const size_t count = source_->read(buffer_.data() + kept, kPiece);
    buffer_.resize(kept + count);
    zeros_.add(std::string_view(buffer_).substr(kept));
    source_ended_ = count == 0;
  }
  if (source_ended_) zeros_.check(source_->name());
}

// Looks at the next character; false at the end.
bool WordReader::peek() {
  if (buffer_.size() - at_ < kLongestCharacter && !source_ended_) refill();
  if (at_ == buffer_.size()) return false;
  const auto character = first_character(std::string_view(buffer_).substr(at_));
  if (!character) refuse_data(place(), "UTF-8 text", "byte " + hex_byte(buffer_[at_]));
  front_ = *character;
  return true;
}

void WordReader::take() {
  at_ += front_.length;
  line_started_ = true;
}

void WordReader::read_word(std::string& word) {
  size_t size = 0;
  do {
    if (size <= kLongestWord) word.append(buffer_, at_, front_.length);
    size += front_.length;
    take();
  } while (peek() && !is_blank(front_.point) && !is_line_end(front_.point));
  if (size > kLongestWord) {
    refuse_data(place(), "words between blanks, of at most 1024 bytes",
                "one of " + std::to_string(size));
  }
}

bool WordReader::next(std::string& word) {
  word.clear();
  while (peek()) {
    const uint32_t point = front_.point;
    if (!is_blank(point) && !is_line_end(point)) {
      read_word(word);
      return true;
    }
    take();
    if (is_line_end(point)) {
      if (point == '\r' && peek() && front_.point == '\n') take();
      line_started_ = false;
      ++line_;
      return true;
    }
  }
  return std::exchange(line_started_, false);
}

std::string WordReader::place() const {
  return "line " + std::to_string(line_) + " of " + source_->name();
}

}  // namespace mnemosyne::tasks
