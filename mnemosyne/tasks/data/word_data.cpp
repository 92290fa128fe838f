#include "mnemosyne/tasks/data/word_data.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <string_view>
#include <unordered_map>

#include "mnemosyne/core/error.h"
#include "mnemosyne/io/byte_source.h"
#include "mnemosyne/tasks/data/bytes.h"
#include "mnemosyne/tasks/data/word_reader.h"

namespace mnemosyne::tasks {
namespace {

constexpr std::string_view kUnknown = "<unk>", kEnd = "<eos>";
constexpr size_t kMostWords = size_t{1} << 28;

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
using WordNumbers = std::unordered_map<std::string, int32_t, StringHash, std::equal_to<>>;

/// Calls `visit` for every word of the file, and with "<eos>" after every line.
template <typename Visit>
void for_words(const std::string& path, const Visit& visit) {
  WordReader words(io::open_unpacked(path));
  std::string word;
  size_t count = 0;
  while (words.next(word)) {
    visit(word.empty() ? kEnd : std::string_view(word));
    if (++count > kMostWords) refuse_data(words.place(), "at most 2^28 words", "more");
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
  std::vector<int64_t> counts;
  std::vector<int32_t> text;
};

Counted number_words(const std::string& path) {
  Counted result;
  WordNumbers numbers{{result.words[0], 0}, {result.words[1], 1}};
  for_words(path, [&](std::string_view word) {
    auto found = numbers.find(word);
    if (found == numbers.end()) {
      found = numbers.emplace(word, static_cast<int32_t>(result.words.size())).first;
      result.words.emplace_back(word);
    }
    result.text.push_back(found->second);
  });
  if (result.words.size() < 3) refuse_data(path, "a text with words", "none");
  result.counts.resize(result.words.size());
  return result;
}

/// Keeps the most frequent words of the first `train` ones and gives all of them their new numbers.
void choose_vocabulary(Counted& counted, size_t train, const WordOptions& options) {
  if (options.max_vocabulary < 3) {
    throw InputError("[words] expected a vocabulary of 3 or more, got " +
                     std::to_string(options.max_vocabulary));
  }
  for (size_t i = 0; i < train; ++i) ++counted.counts[counted.text[i]];
  std::vector<int32_t> order(counted.words.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin() + 2, order.end(),
                   [&](int32_t a, int32_t b) { return counted.counts[a] > counted.counts[b]; });
  order.resize(std::min<size_t>(order.size(), options.max_vocabulary));
  std::vector<int32_t> renumbered(counted.words.size(), static_cast<int32_t>(kUnknownWord));
  std::vector<std::string> kept;
  for (const int32_t word : order) {
    const bool seen = counted.counts[word] > 0 || kept.size() < 2;
    if (!seen) break;  // Only behind the training part.
    renumbered[word] = static_cast<int32_t>(kept.size());
    kept.push_back(std::move(counted.words[word]));
  }
  counted.words = std::move(kept);
  for (int32_t& word : counted.text) word = renumbered[word];
}

int64_t count_unknown(const at::Tensor& text) {
  return text.eq(kUnknownWord).sum().item<int64_t>();
}

}  // namespace

WordData read_words(const std::string& train_file, const std::string& validation_file,
                    const WordOptions& options) {
  Counted train = number_words(train_file);
  choose_vocabulary(train, train.text.size(), options);
  WordNumbers numbers;
  for (const std::string& word : train.words) {
    numbers.emplace(word, static_cast<int32_t>(numbers.size()));
  }
  std::vector<int32_t> validation;
  for_words(validation_file, [&](std::string_view word) {
    const auto found = numbers.find(word);
    validation.push_back(found == numbers.end() ? static_cast<int32_t>(kUnknownWord)
                                                : found->second);
  });
  WordData data{{to_tensor(train.text), to_tensor(validation),
                 static_cast<int64_t>(train.words.size()), std::move(train.words)}};
  data.unknown_in_validation = count_unknown(data.text.validation);
  return data;
}

WordData read_words(const std::string& file, const WordOptions& options) {
  Counted all = number_words(file);
  const size_t validation = all.text.size() / 10, train = all.text.size() - validation;
  choose_vocabulary(all, train, options);
  const at::Tensor text = to_tensor(all.text);
  WordData data{{text.narrow(0, 0, static_cast<int64_t>(train)),
                 text.narrow(0, static_cast<int64_t>(train), static_cast<int64_t>(validation)),
                 static_cast<int64_t>(all.words.size()), std::move(all.words)}};
  data.unknown_in_validation = count_unknown(data.text.validation);
  return data;
}

}  // namespace mnemosyne::tasks
