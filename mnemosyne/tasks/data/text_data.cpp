#include "mnemosyne/tasks/data/text_data.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>
#include <vector>

#include "mnemosyne/core/error.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/io/crc32c.h"
#include "mnemosyne/tasks/data/bytes.h"
#include "mnemosyne/tasks/data/utf8.h"

namespace mnemosyne::tasks {
namespace {

constexpr size_t kShortestText = 1000;
constexpr char kSpace = 0, kFullStop = 1;
constexpr int64_t kFirstLetter = 2;
constexpr int64_t kLetterSuccessors = 4, kWordSuccessors = 6, kTopics = 4, kClasses = 8;

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
constexpr size_t kByteCodes = 256;

TextData two_parts(const at::Tensor& codes, int64_t vocabulary) {
  const int64_t validation = codes.size(0) / 10, train = codes.size(0) - validation;
  return {codes.narrow(0, 0, train), codes.narrow(0, train, validation), vocabulary};
}

/// Calls `visit` with code point and bytes of every character.
template <typename Visit>
void for_characters(std::string_view text, const std::string& name, const Visit& visit) {
  for (size_t at = 0; at < text.size();) {
    const auto character = first_character(text.substr(at));
    if (!character) {
      refuse_data(name, "UTF-8 text",
                  "byte " + hex_byte(text[at]) + " at offset " + std::to_string(at));
    }
    visit(character->point, text.substr(at, character->length));
    at += character->length;
  }
}

/// Words and what follows what, all drawn from one seed.
class Language {
 public:
  Language(uint64_t seed, const SyntheticTextOptions& options)
      : count_(options.words), seed_(seed), random_(mix_seeds(seed, 0)) {
    const int64_t letters = options.alphabet - kFirstLetter;
    for (int64_t i = 0; i < count_; ++i) words_.push_back(draw_word(letters));
    double total = 0.0;
    for (int64_t i = 0; i < count_; ++i) {
      cumulative_.push_back(total += 1.0 / static_cast<double>(i + 2));
    }
  }

  std::string write(int64_t length) {
    std::string text;
    int64_t before = 0, last = 0, topic = 0;
    while (static_cast<int64_t>(text.size()) < length) {
      if (random_.chance(1.0 / 60)) topic = random_.below(kTopics);
      const int64_t word = next_word(before, last, topic);
      text += words_[word];
      if (random_.chance(0.1)) text += kFullStop;
      text += kSpace;
      before = std::exchange(last, word);
    }
    text.resize(length);
    return text;
  }

 private:
  std::string draw_word(int64_t letters) {
    std::string word;
    const int64_t length = 1 + random_.between(1, 3) + random_.between(0, 3);
    int64_t letter = random_.below(letters);
    for (int64_t i = 0; i < length; ++i) {
      word += static_cast<char>(kFirstLetter + letter);
      // A letter's successors are a pure function of it: the same few in every word.
      Random successors(
          mix_seeds(seed_, 1000 + letter * kLetterSuccessors + random_.below(kLetterSuccessors)));
      letter = successors.below(letters);
    }
    return word;
  }

  int64_t zipf(Random& random) const {
    const double target = random.uniform() * cumulative_.back();
    const auto found = std::upper_bound(cumulative_.begin(), cumulative_.end(), target);
    return std::min<int64_t>(found - cumulative_.begin(), count_ - 1);
  }

  int64_t next_word(int64_t before, int64_t last, int64_t topic) {
    if (random_.chance(0.25)) return zipf(random_);
    if (random_.chance(0.25)) return (zipf(random_) + (1 + topic) * count_ / 5) % count_;
    const int64_t rank = std::min(random_.below(kWordSuccessors), random_.below(kWordSuccessors));
    const int64_t context = (before % kClasses * count_ + last) * kWordSuccessors + rank;
    Random successors(mix_seeds(seed_, 1'000'000 + context));
    return zipf(successors);
  }

  int64_t count_;
  uint64_t seed_;
  Random random_;
  std::vector<std::string> words_;
  std::vector<double> cumulative_;
};

}  // namespace

TextData encode_text(std::string_view text, const std::string& name) {
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  ZeroBytes zeros;
  zeros.add(text);
  zeros.check(name);

  std::vector<std::string_view> seen(kCodePoints);
  size_t count = 0;
  for_characters(text, name, [&](uint32_t point, std::string_view bytes) {
    if (seen[point].empty()) seen[point] = bytes;
    ++count;
  });
  std::vector<std::string> symbols;
  std::vector<int32_t> code(kCodePoints);
  for (uint32_t point = 0; point < kCodePoints; ++point) {
    if (seen[point].empty()) continue;
    code[point] = static_cast<int32_t>(symbols.size());
    symbols.emplace_back(seen[point]);
  }
  if (count < kShortestText || symbols.size() < 2) {
    refuse_data(name, "1,000 characters or more, not all equal",
                std::to_string(count) + " characters, " + std::to_string(symbols.size()) +
                    " of them distinct");
  }
  const bool small = symbols.size() <= kByteCodes;
  const at::Tensor codes = at::empty({static_cast<int64_t>(count)}, small ? at::kByte : at::kInt);
  const auto write = [&](auto* next) {
    for_characters(text, name, [&](uint32_t point, std::string_view) {
      *next++ = static_cast<std::remove_pointer_t<decltype(next)>>(code[point]);
    });
  };
  small ? write(codes.mutable_data_ptr<uint8_t>()) : write(codes.mutable_data_ptr<int32_t>());
  TextData data = two_parts(codes, static_cast<int64_t>(symbols.size()));
  data.symbols = std::move(symbols);
  return data;
}

std::string text_fingerprint(const TextData& text) {
  uint32_t crc = 0;
  for (const at::Tensor& part : {text.train, text.validation}) {
    const std::string size = std::to_string(part.numel()) + c10::toString(part.scalar_type());
    crc = io::crc32c(size, crc);
    crc = io::crc32c({static_cast<const char*>(part.const_data_ptr()), part.nbytes()}, crc);
  }
  for (const std::string& symbol : text.symbols) {
    crc = io::crc32c(symbol + '\n', crc);
  }
  return std::to_string(crc);
}

TextData synthetic_text(uint64_t seed, const SyntheticTextOptions& options) {
  if (options.alphabet < 4 || options.alphabet > 256 || options.words < 16 ||
      options.length < static_cast<int64_t>(kShortestText)) {
    throw InputError(
        "[synthetic_text] expected an alphabet of 4 to 256, 16 words or more and 1,000 characters "
        "or "
        "more, got " +
        std::to_string(options.alphabet) + ", " + std::to_string(options.words) + " and " +
        std::to_string(options.length));
  }
  return two_parts(byte_tensor(Language(seed, options).write(options.length)), options.alphabet);
}

}  // namespace mnemosyne::tasks
