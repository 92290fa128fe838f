#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mnemosyne/tasks/data/image_data.h"
#include "mnemosyne/tasks/data/molecule_data.h"
#include "mnemosyne/tasks/data/row_data.h"
#include "mnemosyne/tasks/data/text_data.h"
#include "mnemosyne/tasks/data/word_data.h"

namespace mnemosyne::tasks {

/// Data sets in the formats in which they are published; every file may be plain or gzip (then with
/// or without ".gz"). What is loaded once is shared for as long as somebody uses it. InputError
/// that names the file when one is missing or not what it should be.

/// The path itself, or with ".gz" behind where only that exists.
std::string with_suffix(const std::string& path);

/// The published files of MNIST or Fashion-MNIST (idx_folder.h).
std::shared_ptr<const ImageData> load_idx(const std::string& folder, int64_t pool = 1);

/// Any images: a folder with IDX files (idx_folder.h) or with a subfolder of PNG and JPEG files for
/// each class (image_folder.h). Their fingerprint is set.
std::shared_ptr<const ImageData> load_images(const std::string& folder);

/// A folder with data_batch_1.bin, any of data_batch_2.bin to data_batch_5.bin, and test_batch.bin.
std::shared_ptr<const ImageData> load_cifar(const std::string& folder);

/// A text file, by characters (text_data.h); also packed with xz.
std::shared_ptr<const TextData> load_text(const std::string& path);

/// A text by words (word_data.h), also packed with xz: a file, of which the last tenth is for
/// validation, or a folder of WikiText, where the first two that exist of wiki.train.tokens (or
/// train.txt), wiki.valid.tokens (valid.txt) and wiki.test.tokens (test.txt) are for training and
/// for validation.
std::shared_ptr<const WordData> load_words(const std::string& path, int64_t max_vocabulary);

/// The folders of molecule_files.h.
std::shared_ptr<const MoleculeData> load_qm7(const std::string& folder,
                                             const std::vector<int64_t>& elements);
std::shared_ptr<const MoleculeData> load_rmd17(const std::string& folder,
                                               const std::vector<int64_t>& elements);

/// train_5500.label and TREC_10.label of a folder (questions.h).
std::shared_ptr<const RowData> load_questions(const std::string& folder);

/// delaney-processed.csv of a folder (solubility.h).
std::shared_ptr<const RowData> load_solubility(const std::string& folder);

}  // namespace mnemosyne::tasks
