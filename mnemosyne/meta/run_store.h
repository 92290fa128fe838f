#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "mnemosyne/meta/steps_ratio.h"
#include "mnemosyne/meta/tuning_grid.h"

namespace mnemosyne::meta {

/// What is kept of one finished run.
struct RunRecord {
  Curve losses;                    ///< Training loss of every step; infinite from a divergence on.
  double validation_loss = 0;      ///< At the end; NaN where the task has no held-out data.
  double validation_accuracy = 0;  ///< At the end; NaN where the task is no classification.
  Curve validation_losses = {};    ///< Before the run and after every twentieth of it.

  double final_training_loss() const { return final_loss(losses); }

  /// Mean of the losses; infinity when the run diverged.
  double area_under_curve() const;

  /// Whether the loss became infinite or ended above where it began.
  bool diverged() const;
};

/// The finished pieces of a comparison on disk, so that an interrupted one goes on where it was and
/// an optimizer added later meets the tuned baselines of before.
///
/// One file (meta/checkpoint.h) per run, FOLDER/curves/CELL/LABEL/seed<K>.safetensors, and one per
/// tuning seed, FOLDER/tuning/CELL/LABEL/seed<K>.safetensors. `settings` says what made a piece
/// (rate, schedule, fingerprints of the rule and of a user's own data); a piece that something else
/// made counts as missing. Without a folder nothing is kept. Different pieces may be saved from
/// different threads.
class RunStore {
 public:
  struct Key {
    std::string cell;   ///< For example "vit_digits@500".
    std::string label;  ///< Of the contender.
    uint64_t seed = 0;
  };

  explicit RunStore(std::string folder) : folder_(std::move(folder)) {}

  std::optional<RunRecord> load_run(const Key& key, const std::string& settings) const;
  void save_run(const Key& key, const std::string& settings, const RunRecord& run) const;

  /// Final losses of one seed by grid point; empty when there are none.
  std::map<GridPoint, double> load_tuning(const Key& key, const std::string& settings) const;
  void save_tuning(const Key& key, const std::string& settings,
                   const std::map<GridPoint, double>& losses) const;

 private:
  std::string path(const std::string& kind, const Key& key) const;

  std::string folder_;
};

}  // namespace mnemosyne::meta
