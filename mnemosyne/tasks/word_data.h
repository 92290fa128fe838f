#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mnemosyne/tasks/text_data.h"

namespace mnemosyne::tasks {

/// A text by words, in two parts, with the vocabulary of the first.
struct WordData {
  TextData text;  ///< Numbers of words, int32.
  std::vector<std::string>
      words;  ///< What each number stands for: "<unk>", "<eos>", then by count.
  int64_t unknown_in_validation = 0;  ///< Words there that became "<unk>", those of the file too.
};

/// Number of "<unk>" (what is not in the vocabulary) and of "<eos>" (at the end of every line).
inline constexpr int64_t kUnknownWord = 0, kEndOfLine = 1;

struct WordOptions {
  int64_t max_vocabulary = 10'000;  ///< At least 3: "<unk>", "<eos>" and the most frequent words.
};

/// The format of WikiText (Merity et al., arXiv 1609.07843): UTF-8, words between spaces, "<unk>"
/// for rare ones. Every line, an empty one too, ends with "<eos>". The vocabulary is that of the
/// training file: words of equal count stand in the order in which they first appear. Files may be
/// plain, gzip or xz, and are read a line at a time.
///
/// InputError that names file and line for what is not UTF-8 text, for words of more than 1,024
/// bytes, more than 2^28 words, and for a training file with no word at all.
WordData read_words(const std::string& train_file, const std::string& validation_file,
                    const WordOptions& options = {});

}  // namespace mnemosyne::tasks
