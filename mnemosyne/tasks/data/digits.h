#pragma once

#include <memory>
#include <string_view>

#include "mnemosyne/tasks/data/image_data.h"

namespace mnemosyne::tasks {

/// The 1,797 handwritten digits of 8 x 8 pixels (0 ... 16) that are compiled into the library, in a
/// fixed random order: the first 1,500 for training, the last 297 for testing. Loaded once.
/// InputError when the library was built without them.
/// Source: E. Alpaydin and C. Kaynak, UCI repository, doi 10.24432/C50P49; the file is
/// scikit-learn's.
std::shared_ptr<const ImageData> digits();

/// The same from the text of such a file: one image a line, 64 pixels and the label, with commas.
/// InputError that names the line which is not like that.
ImageData parse_digits(std::string_view text, int64_t train_size);

}  // namespace mnemosyne::tasks
