#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "mnemosyne/meta/contender.h"
#include "mnemosyne/meta/run_store.h"
#include "mnemosyne/tasks/task.h"

namespace mnemosyne::meta {

/// Work was stopped at the caller's wish; what was finished by then is kept.
class Interrupted : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// One row of a comparison: a task trained for a number of steps.
struct Cell {
  std::shared_ptr<const tasks::Task> task;
  int64_t num_steps = 0;

  std::string label() const { return task->name() + "@" + std::to_string(num_steps); }
};

struct ComparisonOptions {
  std::vector<Cell> cells;
  std::vector<Contender> contenders;
  int64_t num_seeds = 5;         ///< Fresh seeds 0 ... that results are reported on.
  int64_t num_tuning_seeds = 3;  ///< Seeds 1,000,000 ... that rates are tuned on.
  int64_t num_threads = 1;       ///< Runs at the same time, each single threaded.
  at::Device device = at::kCPU;  ///< Where they run.
  std::string folder = {};       ///< Where finished pieces are kept (see RunStore); empty: nowhere.

  void validate() const;
};

struct ComparisonProgress {
  std::string stage;  ///< "tuning" or "running".
  std::string piece;  ///< What was worked on last.
  int64_t done = 0;   ///< Training steps summed over members, in this stage.
  int64_t total = 0;
};

/// The library prints nothing: a caller that wants to see progress hands these in. Both are called
/// from worker threads, one at a time.
struct ComparisonEvents {
  std::function<void(const ComparisonProgress&)> on_progress = {};
  std::function<bool()> should_stop = {};  ///< Asked at every step; true throws Interrupted.
};

/// One contender in one cell.
struct ContenderResult {
  std::string label;
  bool tuned = false;
  double lr = 0;  ///< Given or found.
  Schedule schedule = Schedule::kConstant;
  std::vector<RunRecord> runs;            ///< One per seed.
  std::map<GridPoint, double> grid = {};  ///< What tuning saw: mean final loss by setting.
};

struct CellResult {
  Cell cell;
  std::vector<ContenderResult> contenders;  ///< In the order of the options.
};

/// Every contender on every cell, after the protocol of the project's evaluation rules: contenders
/// that are to be tuned get the learning rate (half decades) and schedule (constant, cosine) with
/// the lowest final training loss, mean over the tuning seeds, on each cell by itself; then all run
/// on fresh seeds. All contenders of one seed share the start and the data order.
///
/// Where members are batched (Task::is_batched), the whole grid of one seed trains as one network,
/// and so do all contenders of one seed; elsewhere each is a run of its own, for the threads to
/// share.
std::vector<CellResult> compare(const ComparisonOptions& options,
                                const ComparisonEvents& events = {});

}  // namespace mnemosyne::meta
