#pragma once

#include <memory>
#include <string>

#include "mnemosyne/tasks/stacked/mlp.h"
#include "mnemosyne/tasks/task.h"

namespace mnemosyne::tasks {

struct TeacherOptions {
  MlpOptions teacher = {.sizes = {16, 32, 5}, .activation = Activation::kTanh};
  MlpOptions student = {.sizes = {16, 32, 5}};  ///< First and last size are the teacher's.
  bool classify = false;      ///< The teacher's largest output is the class; otherwise regression.
  double target_noise = 0.0;  ///< Standard deviation of the noise on regression targets.
  int64_t batch_size = 32;
  int64_t table_size = 0;  ///< Only so many examples, whose noise stays; 0: fresh ones.
  uint64_t seed = 0;       ///< Draws the teacher.
};

/// Learning what a random network does on normal inputs, fresh ones in every step or a table of
/// them, which a student can learn by heart; validation is on others, without noise. Regression
/// targets have mean zero and standard deviation one; loss: mean squared error, or cross entropy.
std::shared_ptr<const Task> make_teacher(std::string name, const TeacherOptions& options = {});

}  // namespace mnemosyne::tasks
