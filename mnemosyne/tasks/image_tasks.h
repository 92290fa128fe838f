#pragma once

#include <memory>
#include <string>

#include "mnemosyne/tasks/data/image_batches.h"
#include "mnemosyne/tasks/stacked/model.h"
#include "mnemosyne/tasks/task.h"

namespace mnemosyne::tasks {

/// Telling the classes of images apart: cross entropy of the model's outputs [P,B,num_classes].
///
///     auto task = make_classification("mlp_digits", make_mlp({.sizes = {64, 32, 10}}), digits());
std::shared_ptr<const Task> make_classification(std::string name,
                                                std::shared_ptr<const Model> model,
                                                std::shared_ptr<const ImageData> data,
                                                const ImageBatchOptions& options = {});

/// Giving images back: mean squared error, in units of the pixels' variance, between the model's
/// outputs [P,B,C*H*W] and its inputs.
std::shared_ptr<const Task> make_reconstruction(std::string name,
                                                std::shared_ptr<const Model> model,
                                                std::shared_ptr<const ImageData> data,
                                                const ImageBatchOptions& options = {});

}  // namespace mnemosyne::tasks
