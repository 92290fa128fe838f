#pragma once

#include <cstdint>
#include <string>

#include "mnemosyne/tasks/data/row_data.h"

namespace mnemosyne::tasks {

struct QuestionOptions {
  int64_t max_vocabulary = 1000;  ///< Padding, unknown words, and the most frequent ones.
  int64_t length = 16;  ///< Words of a row: longer questions are cut, shorter ones padded.
};

/// The questions of TREC by their coarse class (Li and Roth, COLING 2002), as published: lines
/// "COARSE:fine question" in latin-1, with words between blanks. Word 0 is padding, word 1 any that
/// is not among the most frequent of the training file; classes are numbered by the alphabet.
/// InputError that names file and line for anything else.
RowData read_questions(const std::string& train_file, const std::string& test_file,
                       const QuestionOptions& options = {});

}  // namespace mnemosyne::tasks
