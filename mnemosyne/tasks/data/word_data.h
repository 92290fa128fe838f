#pragma once

#include <cstdint>
#include <string>

#include "mnemosyne/tasks/data/text_data.h"

namespace mnemosyne::tasks {

/// A text by words, in two parts, with the vocabulary of the first: "<unk>", "<eos>", then words by
/// their count.
struct WordData {
  TextData text;                      ///< Numbers of words, int32.
  int64_t unknown_in_validation = 0;  ///< Words there that became "<unk>", those of the file too.
};

/// Number of "<unk>" (what is not in the vocabulary) and of "<eos>" (at the end of every line).
inline constexpr int64_t kUnknownWord = 0, kEndOfLine = 1;

struct WordOptions {
  int64_t max_vocabulary = 10'000;  ///< At least 3: "<unk>", "<eos>" and the most frequent words.
};

/// A text in UTF-8 with words between blanks (word_reader.h). Every line, an empty one too, ends
/// with "<eos>". The vocabulary is that of the training file: words of equal count stand in the
/// order in which they first appear; what is not in it is "<unk>", as in the format of WikiText
/// (Merity et al., arXiv 1609.07843). Files may be plain, gzip or xz, and are read piece by piece.
///
/// InputError that names file and line for what is not UTF-8 text, for words of more than 1,024
/// bytes, more than 2^28 words, and for a training file with no word at all.
WordData read_words(const std::string& train_file, const std::string& validation_file,
                    const WordOptions& options = {});

/// The same of one file: the first 90 % of its words, ends of lines included, are for training.
WordData read_words(const std::string& file, const WordOptions& options = {});

}  // namespace mnemosyne::tasks
