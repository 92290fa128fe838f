#pragma once

#include <memory>
#include <string>

#include "mnemosyne/core/random.h"
#include "mnemosyne/tasks/task.h"

namespace mnemosyne::tasks {

/// Draws of the families (families.h) whose data are images or signals.
using TaskPtr = std::shared_ptr<const Task>;

TaskPtr sample_mlp(std::string name, Random& random);
TaskPtr sample_residual_mlp(std::string name, Random& random);
TaskPtr sample_conv(std::string name, Random& random);
TaskPtr sample_resnet(std::string name, Random& random);
TaskPtr sample_signals(std::string name, Random& random);
TaskPtr sample_vit(std::string name, Random& random);
TaskPtr sample_autoencoder(std::string name, Random& random);
TaskPtr sample_mixer(std::string name, Random& random);

}  // namespace mnemosyne::tasks
