#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "mnemosyne/tasks/task.h"

namespace mnemosyne::tasks {

/// Rows with what is to be said of each. N = rows, F = numbers or words of a row.
struct RowSet {
  at::Tensor inputs;   ///< [N,F]: float32 numbers or int64 words.
  at::Tensor targets;  ///< [N] int64, classes; or [N,outputs] float32.

  int64_t size() const { return inputs.size(0); }
};

/// A table in two parts that share no row.
struct RowData {
  RowSet train, test;
  int64_t num_classes = 0;  ///< 0: numbers are to be predicted.
  int64_t vocabulary = 0;   ///< Of words; 0: rows are numbers.
};

/// Batches {inputs, targets} of which every epoch has each row once.
std::unique_ptr<BatchStream> row_stream(RowSet rows, int64_t batch_size, uint64_t seed);

}  // namespace mnemosyne::tasks
