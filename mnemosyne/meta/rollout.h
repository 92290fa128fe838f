#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "mnemosyne/optim/population.h"
#include "mnemosyne/tasks/task.h"

namespace mnemosyne::meta {

/// How the learning rate of a hand-designed rule develops over a run.
enum class Schedule {
  kConstant,
  kCosine,  ///< From the full rate at the first step to zero after the last one.
};

/// What multiplies the learning rate at a step of 0 ... num_steps - 1.
double schedule_factor(Schedule schedule, int64_t step, int64_t num_steps);

/// One of the networks that a Rollout trains side by side, and what trains it.
struct Member {
  std::shared_ptr<const optim::UpdateRule> rule;
  optim::StepOptions options = {};
  Schedule schedule = Schedule::kConstant;
};

/// Trains P copies of a task's network, each with its own rule, on the same data and from the same
/// start.
///
/// This is the inner loop of everything: of `train`, of a tuning grid, of a population of perturbed
/// optimizers. A member whose loss or gradient is no longer finite stops being updated; its losses
/// are reported as infinity from then on.
///
/// Start and data are drawn on the CPU, the same for every device, and trained on `device`; what is
/// read back of a step are its losses. Rules step all of their members in one pass
/// (optim/population.h).
///
///     meta::Rollout rollout(task, members, num_steps, seed);
///     while (!rollout.done()) losses.push_back(rollout.step());
class Rollout {
 public:
  Rollout(std::shared_ptr<const tasks::Task> task, std::vector<Member> members, int64_t num_steps,
          uint64_t seed, at::Device device = at::kCPU);

  /// One training step; the losses [P] of the batch before the update.
  std::vector<float> step();

  bool done() const { return step_ >= num_steps_; }
  int64_t step_index() const { return step_; }
  int64_t num_steps() const { return num_steps_; }

  /// Mean loss over the task's validation batches, [P]; empty when the task has none.
  std::vector<float> validation_loss() const;

  /// Mean accuracy over the task's validation batches, [P]; empty where there is none.
  std::vector<float> validation_accuracy() const;

  /// Everything a resumed run needs, as named tensors; `restore` continues bit for bit.
  NamedTensors checkpoint() const;
  void restore(const NamedTensors& tensors);

  const std::vector<at::Tensor>& params() const { return params_; }

  /// Copies [P, ...] of where the networks should be evaluated: the parameters, but for rules that
  /// give an average (see `UpdateRule::evaluation_params`). Validation uses these.
  std::vector<at::Tensor> evaluation_params() const;

 private:
  using Measure = at::Tensor (tasks::Task::*)(at::TensorList params, const tasks::Batch&) const;
  std::vector<float> validation_mean(Measure measure) const;

  std::shared_ptr<const tasks::Task> task_;
  std::vector<Member> members_;
  int64_t num_steps_;
  at::Device device_;
  int64_t step_ = 0;
  std::unique_ptr<tasks::BatchStream> stream_;
  std::vector<at::Tensor> params_;  // stacked, [P, ...]
  std::unique_ptr<optim::Population> population_;
  std::vector<char> alive_;  // per member
};

}  // namespace mnemosyne::meta
