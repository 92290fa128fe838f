#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "mnemosyne/meta/estimator.h"
#include "mnemosyne/meta/horizon.h"
#include "mnemosyne/meta/outer_optimizer.h"
#include "mnemosyne/meta/process_group.h"
#include "mnemosyne/meta/validation.h"

namespace mnemosyne::meta {

struct TrainerOptions {
  uint64_t seed = 0;
  int64_t num_outer_steps = 1000;
  double max_minutes =
      0;  ///< Stop after this time, earlier runs of a resumed one included; 0: no limit.
  int64_t num_workers = 0;  ///< Threads; 0: one per core. Nothing in the result depends on them.
  at::Device device = at::kCPU;      ///< Where networks are trained.
  bool cosine_rate = false;          ///< Whether the outer rate falls to a tenth over rate_steps.
  int64_t rate_steps = 0;            ///< Outer steps of that; 0: num_outer_steps.
  int64_t validate_every = 25;       ///< Outer steps between validations; 0: never.
  int64_t checkpoint_every = 25;     ///< Outer steps between checkpoints of `run`.
  std::string checkpoint_path = {};  ///< Empty: `run` writes none. The same on all ranks.
  std::shared_ptr<ProcessGroup> processes = alone();  ///< Who shares the work; as `num_workers`.
  OuterOptimizerOptions outer = {};
  HorizonOptions horizon = {};
};

/// One outer step, for progress lines and metrics.
struct OuterReport {
  int64_t step = 0;  ///< Outer steps taken, this one included.
  int64_t num_outer_steps = 0;
  int64_t horizon = 0;
  double meta_loss = 0;      ///< NaN when everything was skipped.
  double gradient_norm = 0;  ///< Before clipping.
  double learning_rate = 0;
  int64_t skipped = 0;         ///< Tasks and windows skipped so far.
  int64_t inner_steps = 0;     ///< Training steps so far, summed over members.
  double seconds = 0;          ///< Of this step.
  double elapsed_seconds = 0;  ///< Since the start, earlier runs of a resumed one included.
  std::vector<RunReport> runs = {};
};

/// One validation, after outer step `step`.
struct ValidationReport {
  int64_t step = 0;
  int64_t horizon = 0;             ///< The training horizon; validation runs are longer.
  ValidationScore candidate = {};  ///< The averaged weights of now against the initial ones.
  ValidationScore best = {};       ///< The best weights before this validation, on the same runs.
  bool improved = false;           ///< Whether the candidate became the best.
};

/// The library prints nothing: a caller that wants to see progress hands these in.
struct TrainerEvents {
  std::function<void(const OuterReport&)> on_step = {};
  std::function<void(const ValidationReport&)> on_validation = {};
  std::function<bool()> should_stop = {};  ///< Asked after every outer step.
};

/// Meta-training: an estimator's gradients, an outer optimizer, growing horizons and the choice of
/// weights.
///
/// With several processes every one has a trainer of the same options, and all of them call the
/// same functions; rank 0 alone writes files.
///
///     Trainer trainer(rule, std::move(estimator), validator, {.num_outer_steps = 100});
///     trainer.run();
///     NamedTensors weights = trainer.best_weights();
class Trainer {
 public:
  Trainer(std::shared_ptr<const optim::UpdateRule> rule,
          std::unique_ptr<GradientEstimator> estimator, Validator validator,
          TrainerOptions options);

  /// Until num_outer_steps, the time limit or `should_stop`; with checkpoints in between and at the
  /// end.
  void run(const TrainerEvents& events = {});

  /// One outer step, without validation.
  OuterReport step();

  /// Compares the averaged weights with the best so far and keeps the better ones.
  ValidationReport validate();

  bool done() const;
  int64_t outer_step() const { return outer_step_; }

  NamedTensors last_weights() const;     ///< Those of the last outer step.
  NamedTensors average_weights() const;  ///< Their moving average.
  NamedTensors best_weights()
      const;  ///< Those chosen by validation; the average before the first one.

  /// Everything that a resumed meta-training needs to continue bit for bit, on any number of ranks:
  /// on rank 0, a part of it on the others.
  NamedTensors checkpoint() const;
  void restore(const NamedTensors& tensors);

  /// The same as a safetensors file, written beside and renamed. `metadata` says what was trained;
  /// `load` refuses (InputError) a file whose metadata differ from it (meta/checkpoint.h). Other
  /// ranks get from rank 0 what it has read.
  void save(const std::string& path) const;
  void load(const std::string& path);
  void set_metadata(std::map<std::string, std::string> metadata) {
    metadata_ = std::move(metadata);
  }

 private:
  std::shared_ptr<const optim::UpdateRule> with(const at::Tensor& flat) const;
  double rate_factor() const;
  void take_outer_state_of_root();

  std::shared_ptr<const optim::UpdateRule> rule_;
  std::unique_ptr<GradientEstimator> estimator_;
  Validator validator_;
  TrainerOptions options_;
  OuterOptimizer outer_;
  HorizonSchedule horizon_;
  std::map<std::string, std::string> metadata_;
  at::Tensor best_;  // [N]; undefined before the first validation
  int64_t outer_step_ = 0;
  int64_t skipped_ = 0;
  int64_t inner_steps_ = 0;
  double elapsed_seconds_ = 0;
};

}  // namespace mnemosyne::meta
