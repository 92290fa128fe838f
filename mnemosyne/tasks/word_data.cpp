#include "mnemosyne/tasks/word_data.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <string_view>
#include <unordered_map>

#include "mnemosyne/core/error.h"
#include "mnemosyne/io/byte_source.h"
#include "mnemosyne/io/line_reader.h"
#include "mnemosyne/tasks/bytes.h"
#include "mnemosyne/tasks/utf8.h"

namespace mnemosyne::tasks {
namespace {

constexpr std::string_view kUnknown = "<unk>", kEnd = "<eos>", kBlanks = " \t\v\f";
constexpr size_t kLongestWord = 1024, kMostWords = size_t{1} << 28;

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
using WordNumbers = std::unordered_map<std::string, int32_t, StringHash, std::equal_to<>>;

/// Calls `visit` for every word of the file, and for "<eos>" after every line.
template <typename Visit>
void for_words(const std::string& path, const Visit& visit) {
  io::LineReader lines(io::open_unpacked(path));
  std::string_view line;
  size_t count = 0;
  while (lines.next(line)) {
    if (!is_utf8(line)) refuse_data(lines.place(), "UTF-8 text", "other bytes");
    for (size_t start = line.find_first_not_of(kBlanks); start != std::string_view::npos;
         start = line.find_first_not_of(kBlanks)) {
      line.remove_prefix(start);
      const std::string_view word = line.substr(0, line.find_first_of(kBlanks));
      if (word.size() > kLongestWord) {
        refuse_data(lines.place(), "words of at most 1024 bytes",
                    "one of " + std::to_string(word.size()));
      }
      visit(word);
      line.remove_prefix(word.size());
      ++count;
    }
    visit(kEnd);
    if (++count > kMostWords) refuse_data(lines.place(), "at most 2^28 words", "more");
  }
}

at::Tensor to_tensor(const std::vector<int32_t>& numbers) {
  at::Tensor result = at::empty({static_cast<int64_t>(numbers.size())}, at::kInt);
  std::copy(numbers.begin(), numbers.end(), result.mutable_data_ptr<int32_t>());
  return result;
}

/// A text as numbers in the order of first appearance, behind those of "<unk>" and "<eos>".
struct Counted {
  std::vector<std::string> words{std::string(kUnknown), std::string(kEnd)};
  std::vector<int64_t> counts{0, 0};
  std::vector<int32_t> text;
};

Counted count_words(const std::string& path) {
  Counted result;
  WordNumbers numbers{{result.words[0], 0}, {result.words[1], 1}};
  for_words(path, [&](std::string_view word) {
    auto found = numbers.find(word);
    if (found == numbers.end()) {
      found = numbers.emplace(word, static_cast<int32_t>(result.words.size())).first;
      result.words.emplace_back(word);
      result.counts.push_back(0);
    }
    ++result.counts[found->second];
    result.text.push_back(found->second);
  });
  if (result.words.size() < 3) refuse_data(path, "a text with words", "none");
  return result;
}

/// Keeps the most frequent words and returns the new number of every old one.
std::vector<int32_t> choose_vocabulary(Counted& counted, int64_t max_vocabulary) {
  std::vector<int32_t> order(counted.words.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin() + 2, order.end(),
                   [&](int32_t a, int32_t b) { return counted.counts[a] > counted.counts[b]; });
  order.resize(std::min<size_t>(order.size(), max_vocabulary));
  std::vector<int32_t> renumbered(counted.words.size(), static_cast<int32_t>(kUnknownWord));
  std::vector<std::string> kept;
  for (const int32_t word : order) {
    renumbered[word] = static_cast<int32_t>(kept.size());
    kept.push_back(std::move(counted.words[word]));
  }
  counted.words = std::move(kept);
  return renumbered;
}

}  // namespace

WordData read_words(const std::string& train_file, const std::string& validation_file,
                    const WordOptions& options) {
  if (options.max_vocabulary < 3) {
    throw InputError("[words] expected a vocabulary of 3 or more, got " +
                     std::to_string(options.max_vocabulary));
  }
  Counted train = count_words(train_file);
  const std::vector<int32_t> renumbered = choose_vocabulary(train, options.max_vocabulary);
  for (int32_t& word : train.text) word = renumbered[word];

  WordNumbers numbers;
  for (const std::string& word : train.words) {
    numbers.emplace(word, static_cast<int32_t>(numbers.size()));
  }
  WordData data;
  std::vector<int32_t> validation;
  for_words(validation_file, [&](std::string_view word) {
    const auto found = numbers.find(word);
    validation.push_back(found == numbers.end() ? static_cast<int32_t>(kUnknownWord)
                                                : found->second);
    data.unknown_in_validation += validation.back() == kUnknownWord ? 1 : 0;
  });
  data.text = {to_tensor(train.text), to_tensor(validation),
               static_cast<int64_t>(train.words.size())};
  data.words = std::move(train.words);
  return data;
}

}  // namespace mnemosyne::tasks
