#pragma once

#include <memory>
#include <string>

#include "mnemosyne/meta/rollout.h"
#include "mnemosyne/optim/update_rule.h"

namespace mnemosyne::meta {

/// One optimizer of a comparison, with what is decided beforehand about its learning rate.
struct Contender {
  std::string label;  ///< As the user wrote it; names its rows and files.
  std::shared_ptr<const optim::UpdateRule> rule;
  bool tuned = false;  ///< Learning rate and schedule are to be tuned per task and length.
  double lr = 1.0;     ///< Where not tuned.
  Schedule schedule = Schedule::kConstant;
  bool give_num_steps = false;  ///< The rule is told how long the run will be.

  /// What trains a run of `num_steps` at this contender's own rate and schedule.
  Member member(int64_t num_steps) const;

  /// The same at another rate and schedule.
  Member member(int64_t num_steps, double other_lr, Schedule other_schedule) const;
};

/// Reads a contender: NAME or LABEL=NAME, where NAME is a rule (`optim::rule_names()`) or a weights
/// file
/// (*.safetensors), then in any order
///
///     @RATE       fixed learning rate: "adamw@1e-3"
///     :cosine     falling to zero over the run: "adamw@1e-3:cosine"
///     :num_steps  the rule is told the length of the run: "mnemosyne:num_steps"
///     +           tuned per task and length: "schedule-free+"
///
/// With `tune`, hand-designed rules that have no good rate of their own (sgd, adam, adamw,
/// adafactor, muon) are tuned also without "+", unless a rate is given. Learned rules get the
/// shipped weights. Throws InputError for anything else.
Contender parse_contender(const std::string& text, bool tune);

const char* schedule_name(Schedule schedule);

}  // namespace mnemosyne::meta
