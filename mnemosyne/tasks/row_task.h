#pragma once

#include <memory>
#include <string>

#include "mnemosyne/tasks/data/row_data.h"
#include "mnemosyne/tasks/stacked/model.h"
#include "mnemosyne/tasks/task.h"

namespace mnemosyne::tasks {

/// Saying of every row of a table what its target is: cross entropy where those are classes, else
/// mean squared error, of the model's outputs [P,B,classes or outputs]. Batches {inputs [B,F],
/// targets}; every epoch sees each row once.
std::shared_ptr<const Task> make_row_task(std::string name, std::shared_ptr<const Model> model,
                                          std::shared_ptr<const RowData> data, int64_t batch_size);

}  // namespace mnemosyne::tasks
