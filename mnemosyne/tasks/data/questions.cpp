#include "mnemosyne/tasks/data/questions.h"

#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "mnemosyne/io/line_reader.h"
#include "mnemosyne/tasks/data/bytes.h"

namespace mnemosyne::tasks {
namespace {

constexpr int64_t kUnknown = 1, kFirstWord = 2;

struct Question {
  std::string label;
  std::vector<std::string> words;
};

std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> words;
  for (size_t at = text.find_first_not_of(' '); at != std::string_view::npos;) {
    const size_t end = std::min(text.find(' ', at), text.size());
    words.emplace_back(text.substr(at, end - at));
    at = text.find_first_not_of(' ', end);
  }
  return words;
}

std::vector<Question> read_file(const std::string& path) {
  std::vector<Question> questions;
  io::LineReader lines(io::open_unpacked(path));
  std::string_view line;
  while (lines.next(line)) {
    const size_t colon = line.find(':'), blank = line.find(' ');
    std::vector<std::string> words;
    if (blank != std::string_view::npos) words = split(line.substr(blank));
    if (colon == std::string_view::npos || colon == 0 || colon > blank || words.empty()) {
      refuse_data(lines.place(), "\"COARSE:fine question\"", "something else");
    }
    questions.push_back({std::string(line.substr(0, colon)), std::move(words)});
  }
  if (questions.empty()) refuse_data(path, "questions", "none");
  return questions;
}

using Numbers = std::map<std::string, int64_t>;

Numbers number_labels(const std::vector<Question>& questions) {
  Numbers labels;
  for (const Question& question : questions) labels[question.label] = 0;
  int64_t next = 0;
  for (auto& [label, number] : labels) number = next++;
  return labels;
}

/// The most frequent words; those of equal count by the alphabet.
Numbers number_words(const std::vector<Question>& questions, int64_t max_vocabulary) {
  Numbers counts;
  for (const Question& question : questions) {
    for (const std::string& word : question.words) ++counts[word];
  }
  std::vector<std::pair<std::string, int64_t>> order(counts.begin(), counts.end());
  std::stable_sort(order.begin(), order.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  Numbers words;
  for (const auto& [word, count] : order) {
    const int64_t number = kFirstWord + static_cast<int64_t>(words.size());
    if (number == max_vocabulary) break;
    words[word] = number;
  }
  return words;
}

RowSet encode(const std::vector<Question>& questions, const Numbers& words, const Numbers& labels,
              int64_t length, const std::string& name) {
  const auto count = static_cast<int64_t>(questions.size());
  const at::Tensor inputs = at::zeros({count, length}, at::kLong);
  auto* row = inputs.mutable_data_ptr<int64_t>();
  std::vector<int64_t> targets;
  for (const Question& question : questions) {
    const auto label = labels.find(question.label);
    if (label == labels.end()) {
      refuse_data(name, "classes of the training file", "\"" + question.label + "\"");
    }
    targets.push_back(label->second);
    const size_t used = std::min(question.words.size(), static_cast<size_t>(length));
    for (size_t i = 0; i < used; ++i) {
      const auto word = words.find(question.words[i]);
      row[i] = word == words.end() ? kUnknown : word->second;
    }
    row += length;
  }
  return {inputs, at::tensor(targets, at::kLong)};
}

}  // namespace

RowData read_questions(const std::string& train_file, const std::string& test_file,
                       const QuestionOptions& options) {
  const std::vector<Question> train = read_file(train_file), test = read_file(test_file);
  const Numbers labels = number_labels(train), words = number_words(train, options.max_vocabulary);
  return {.train = encode(train, words, labels, options.length, train_file),
          .test = encode(test, words, labels, options.length, test_file),
          .num_classes = static_cast<int64_t>(labels.size()),
          .vocabulary = options.max_vocabulary};
}

}  // namespace mnemosyne::tasks
