#pragma once

#include <memory>
#include <string>
#include <vector>

#include "mnemosyne/tasks/task.h"

namespace mnemosyne::tasks {

/// The distributions that weights are meta-trained on: quadratic, mlp, conv, vit, lm, autoencoder,
/// function, residual_mlp, resnet, signals, tied_lm, table. Tiny networks on the embedded digits
/// and on synthetic images, signals, text and functions, so that no data folder is needed and
/// sixteen members step in a few milliseconds.
std::vector<std::shared_ptr<const TaskFamily>> meta_training_families();

/// The distributions that choose between weights: rnn_lm, teacher, mixer. Architectures and data
/// that meta-training does not see; neither list has anything in common with the test tasks of
/// registry.h.
std::vector<std::shared_ptr<const TaskFamily>> validation_families();

/// A family of either list by its name; InputError that lists the names when there is none.
///
///     auto task = tasks::make_family("mlp")->sample(7);
std::shared_ptr<const TaskFamily> make_family(const std::string& name);

}  // namespace mnemosyne::tasks
