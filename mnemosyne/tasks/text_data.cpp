#include "mnemosyne/tasks/text_data.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "mnemosyne/core/error.h"
#include "mnemosyne/tasks/bytes.h"
#include "mnemosyne/tasks/random.h"

namespace mnemosyne::tasks {
namespace {

constexpr size_t kShortestText = 1000;
constexpr char kSpace = 0, kFullStop = 1;
constexpr int64_t kFirstLetter = 2;
constexpr int64_t kLetterSuccessors = 4, kWordSuccessors = 6, kTopics = 4, kClasses = 8;

TextData split(std::string_view codes, int64_t vocabulary) {
  const size_t train = codes.size() - codes.size() / 10;
  return {byte_tensor(codes.substr(0, train)), byte_tensor(codes.substr(train)), vocabulary};
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
  std::array<int, 256> code{};
  for (const char c : text) code[static_cast<unsigned char>(c)] = 1;
  int vocabulary = 0;
  for (int& entry : code) entry = entry == 1 ? vocabulary++ : -1;
  if (text.size() < kShortestText || vocabulary < 2) {
    refuse_data(name, "1,000 characters or more, not all equal",
                std::to_string(text.size()) + " characters, " + std::to_string(vocabulary) +
                    " of them distinct");
  }
  std::string codes(text);
  for (char& c : codes) c = static_cast<char>(code[static_cast<unsigned char>(c)]);
  return split(codes, vocabulary);
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
  return split(Language(seed, options).write(options.length), options.alphabet);
}

}  // namespace mnemosyne::tasks
