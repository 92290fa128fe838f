#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "mnemosyne/meta/contender.h"
#include "mnemosyne/tasks/task.h"

namespace mnemosyne::meta {

struct TrainingOptions {
  std::shared_ptr<const tasks::Task> task;
  Contender optimizer;
  std::optional<double> weight_decay = {};  ///< Unset: the optimizer's own.
  int64_t num_steps = 1000;
  uint64_t seed = 0;
  at::Device device = at::kCPU;
  std::string folder = {};       ///< Where metrics, checkpoint and weights go; empty: nowhere.
  bool resume = false;           ///< Continue from the folder's checkpoint where there is one.
  int64_t validate_every = 100;  ///< Steps; 0: at the end only.
  int64_t checkpoint_every = 0;  ///< Steps; 0: by time only.
  double checkpoint_seconds =
      30;  ///< A checkpoint at the latest after this time; 0: by steps only.

  void validate() const;
};

/// What is known after a step.
struct TrainingReport {
  int64_t step = 0;  ///< Steps taken, this one included.
  int64_t num_steps = 0;
  double loss = 0;                 ///< Of the step's batch before its update.
  double smoothed_loss = 0;        ///< Mean of the last 25 losses.
  bool validated = false;          ///< Whether the following two are of this step.
  double validation_loss = 0;      ///< NaN where the task has no held-out data.
  double validation_accuracy = 0;  ///< NaN where the task is no classification.
};

/// The library prints nothing: a caller that wants to see progress hands these in.
struct TrainingEvents {
  std::function<void(const TrainingReport&)> on_step = {};
  std::function<bool()> should_stop = {};  ///< Asked after every step; true ends in a checkpoint.
};

struct TrainingResult {
  TrainingReport last;     ///< Of the last step, with validation when finished.
  int64_t first_step = 0;  ///< Steps that an earlier run had taken.
  bool finished = false;   ///< False when `should_stop` ended it.
};

/// Trains one network of a task with one optimizer.
///
/// In `folder`: metrics.jsonl and TensorBoard events (`io::MetricSink`), checkpoint.safetensors,
/// written beside and renamed, and at the end weights.safetensors with the network's parameters by
/// name. A run that was interrupted at any moment and is resumed ends with the same weights and
/// metrics, bit for bit, as one that was not. It may be resumed on another device, where numbers
/// differ by rounding.
///
/// A resumed run may have another `num_steps`, no fewer than it has taken, also when it had ended:
/// it goes on as one of that length. Where neither schedule nor rule knows the length (Schedule
/// kConstant, no `give_num_steps`), that is bit for bit the run which had it from the start; only
/// the former last step keeps its validation in the metrics. A cosine and a rule that is told the
/// length continue at this step of their course over the new length, so that the rate of a cosine
/// that had come to zero rises again.
///
/// InputError when the folder holds a run and `resume` is not set, and when its checkpoint belongs
/// to a run of other options or of a user's other data.
TrainingResult train(const TrainingOptions& options, const TrainingEvents& events = {});

/// The length of the run whose checkpoint is in the folder; nothing when there is none.
std::optional<int64_t> steps_of_run(const std::string& folder);

}  // namespace mnemosyne::meta
