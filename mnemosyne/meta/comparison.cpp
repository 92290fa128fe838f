#include "mnemosyne/meta/comparison.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <set>

#include "mnemosyne/core/error.h"
#include "mnemosyne/io/file.h"
#include "mnemosyne/meta/parallel.h"
#include "mnemosyne/meta/step_timing.h"
#include "mnemosyne/optim/weights.h"

namespace mnemosyne::meta {
namespace {

constexpr uint64_t kFirstTuningSeed = 1'000'000;

// Counts member-steps of one stage over all threads and passes them on.
class StageProgress {
 public:
  StageProgress(std::string stage, int64_t total, const ComparisonEvents& events)
      : events_(events), progress_{std::move(stage), "", 0, total} {}

  // Called after every step of `members` networks.
  void advance(const std::string& piece, int64_t members) {
    const std::lock_guard lock(mutex_);
    progress_.piece = piece;
    progress_.done += members;
    if (events_.on_progress) events_.on_progress(progress_);
    if (events_.should_stop && events_.should_stop()) {
      throw Interrupted("[compare] interrupted; the same command continues");
    }
  }

 private:
  const ComparisonEvents& events_;
  std::mutex mutex_;
  ComparisonProgress progress_;
};

std::string settings_of(const Cell& cell, const Contender& contender, const std::string& rate) {
  const std::string data = cell.task->data_fingerprint();
  return rate + (contender.give_num_steps ? " num_steps" : "") + " rule " +
         optim::weights_hash(*contender.rule) + (data.empty() ? "" : " data " + data);
}

std::string settings_of(const Cell& cell, const Contender& contender, double lr,
                        Schedule schedule) {
  char rate[64];
  std::snprintf(rate, sizeof rate, "lr %.6g %s", lr, schedule_name(schedule));
  return settings_of(cell, contender, rate);
}

// 0 ... count - 1 as lists of what trains as one network: all together where that is batched, else
// each by itself, so that every thread has something to do until the end.
std::vector<std::vector<size_t>> pieces(const tasks::Task& task, size_t count) {
  std::vector<std::vector<size_t>> result;
  for (size_t i = 0; i < count; ++i) {
    if (result.empty() || !task.is_batched()) result.emplace_back();
    result.back().push_back(i);
  }
  return result;
}

// Whether the run has come through another share of its length; runs shorter than that many steps
// are looked at after each.
bool is_validation_step(const Rollout& rollout) {
  constexpr int64_t kParts = 20;
  const int64_t parts = std::min(kParts, rollout.num_steps()), step = rollout.step_index();
  return step * parts / rollout.num_steps() > (step - 1) * parts / rollout.num_steps();
}

// The search of one contender on one cell.
struct Search {
  size_t cell;
  size_t contender;
  TuningGrid grid;
};

class Comparison {
 public:
  Comparison(const ComparisonOptions& options, const ComparisonEvents& events)
      : options_(options), events_(events), store_(options.folder) {}

  std::vector<CellResult> run() {
    for (const Cell& cell : options_.cells) {
      CellResult& result = results_.emplace_back(CellResult{cell, {}});
      for (const Contender& contender : options_.contenders) {
        result.contenders.push_back(
            {contender.label, contender.tuned, contender.lr, contender.schedule, {}, {}});
      }
    }
    tune();
    run_all_seeds();
    return std::move(results_);
  }

 private:
  void tune() {
    std::vector<Search> searches;
    for (size_t cell = 0; cell < options_.cells.size(); ++cell) {
      for (size_t i = 0; i < options_.contenders.size(); ++i) {
        const Contender& contender = options_.contenders[i];
        if (!contender.tuned) continue;
        searches.push_back({cell, i, TuningGrid(contender.rule->default_lr())});
      }
    }
    while (tune_round(searches)) {
    }
    for (const Search& search : searches) {
      ContenderResult& result = results_[search.cell].contenders[search.contender];
      result.lr = search.grid.best().lr();
      result.schedule = search.grid.best().schedule;
      result.grid = search.grid.losses();
    }
  }

  // Tries what the searches miss, all seeds of all searches side by side; false when nothing was
  // missing.
  bool tune_round(std::vector<Search>& searches) {
    struct Job {
      Search* search;
      std::vector<GridPoint> points;
      uint64_t seed;
      std::vector<double> losses;
    };
    std::vector<Job> jobs;
    int64_t total = 0;
    for (Search& search : searches) {
      const std::vector<GridPoint> missing = search.grid.missing();
      const Cell& cell = options_.cells[search.cell];
      for (int64_t s = 0; s < options_.num_tuning_seeds; ++s) {
        for (const std::vector<size_t>& piece : pieces(*cell.task, missing.size())) {
          Job& job =
              jobs.emplace_back(Job{&search, {}, kFirstTuningSeed + static_cast<uint64_t>(s), {}});
          for (const size_t p : piece) job.points.push_back(missing[p]);
        }
        total += static_cast<int64_t>(missing.size()) * cell.num_steps;
      }
    }
    StageProgress progress("tuning", total, events_);
    run_parallel(static_cast<int64_t>(jobs.size()), options_.num_threads, [&](int64_t i) {
      Job& job = jobs[static_cast<size_t>(i)];
      job.losses = grid_losses(*job.search, job.points, job.seed, progress);
    });
    std::map<std::pair<Search*, GridPoint>, double> sums;  // over the seeds in their order
    for (const Job& job : jobs) {
      for (size_t p = 0; p < job.points.size(); ++p) {
        sums[{job.search, job.points[p]}] += job.losses[p];
      }
    }
    for (const auto& [key, sum] : sums) {
      key.first->grid.set(key.second, sum / static_cast<double>(options_.num_tuning_seeds));
    }
    return !jobs.empty();
  }

  // Final losses of one seed at these points, read back or trained as one batched network.
  std::vector<double> grid_losses(const Search& search, const std::vector<GridPoint>& points,
                                  uint64_t seed, StageProgress& progress) {
    const Cell& cell = options_.cells[search.cell];
    const Contender& contender = options_.contenders[search.contender];
    const RunStore::Key key{cell.label(), contender.label, seed};
    const std::string settings = settings_of(cell, contender, "grid");
    std::map<GridPoint, double> known = load_tuning(key, settings);

    std::vector<GridPoint> unknown;
    std::vector<Member> members;
    for (const GridPoint& point : points) {
      if (known.count(point) != 0) continue;
      unknown.push_back(point);
      members.push_back(contender.member(cell.num_steps, point.lr(), point.schedule));
    }
    const auto read_back = static_cast<int64_t>(points.size() - unknown.size());
    const std::string piece = cell.label() + " " + contender.label;
    progress.advance(piece, read_back * cell.num_steps);
    if (!members.empty()) {
      const std::vector<Curve> curves = train(cell, members, seed, piece, progress, nullptr);
      const std::lock_guard lock(tuning_mutex_);  // other points of this seed are in the same file
      for (const auto& [point, loss] : store_.load_tuning(key, settings)) known[point] = loss;
      for (size_t m = 0; m < unknown.size(); ++m) known[unknown[m]] = final_loss(curves[m]);
      store_.save_tuning(key, settings, known);
    }
    std::vector<double> losses;
    for (const GridPoint& point : points) losses.push_back(known.at(point));
    return losses;
  }

  std::map<GridPoint, double> load_tuning(const RunStore::Key& key, const std::string& settings) {
    const std::lock_guard lock(tuning_mutex_);
    return store_.load_tuning(key, settings);
  }

  void run_all_seeds() {
    struct Job {
      CellResult* result;
      uint64_t seed;
      std::vector<size_t> contenders;
      double state_bytes;  // per parameter, of the first
    };
    std::vector<Job> jobs;
    int64_t total = 0;
    for (CellResult& result : results_) {
      for (ContenderResult& contender : result.contenders) {
        contender.runs.resize(static_cast<size_t>(options_.num_seeds));
        total += options_.num_seeds * result.cell.num_steps;
      }
      const tasks::Task& task = *result.cell.task;
      const std::vector<at::Tensor> params = task.init(0);
      for (const std::vector<size_t>& piece : pieces(task, result.contenders.size())) {
        const optim::UpdateRule& first = *options_.contenders[piece[0]].rule;
        for (int64_t seed = 0; seed < options_.num_seeds; ++seed) {
          jobs.push_back(
              {&result, static_cast<uint64_t>(seed), piece, state_bytes_per_param(first, params)});
        }
      }
    }
    // Optimizers that remember much of a parameter take long over it: first, so that no thread is
    // left with one at the end.
    std::stable_sort(jobs.begin(), jobs.end(),
                     [](const Job& a, const Job& b) { return a.state_bytes > b.state_bytes; });
    StageProgress progress("running", total, events_);
    run_parallel(static_cast<int64_t>(jobs.size()), options_.num_threads, [&](int64_t i) {
      const Job& job = jobs[static_cast<size_t>(i)];
      run_seed(*job.result, job.contenders, job.seed, progress);
    });
  }

  // Those of these contenders of one cell and seed that are not on disk yet, as one network.
  void run_seed(CellResult& result, const std::vector<size_t>& contenders, uint64_t seed,
                StageProgress& progress) const {
    const Cell& cell = result.cell;
    std::vector<size_t> pending;
    std::vector<Member> members;
    for (const size_t i : contenders) {
      ContenderResult& own = result.contenders[i];
      const Contender& contender = options_.contenders[i];
      const auto kept = store_.load_run({cell.label(), own.label, seed},
                                        settings_of(cell, contender, own.lr, own.schedule));
      if (kept) {
        own.runs[seed] = *kept;
        progress.advance(cell.label(), cell.num_steps);
      } else {
        pending.push_back(i);
        members.push_back(contender.member(cell.num_steps, own.lr, own.schedule));
      }
    }
    if (pending.empty()) return;
    std::vector<RunRecord> records(pending.size());
    const std::vector<Curve> curves = train(cell, members, seed, cell.label(), progress, &records);
    for (size_t m = 0; m < pending.size(); ++m) {
      ContenderResult& own = result.contenders[pending[m]];
      records[m].losses = curves[m];
      store_.save_run({cell.label(), own.label, seed},
                      settings_of(cell, options_.contenders[pending[m]], own.lr, own.schedule),
                      records[m]);
      own.runs[seed] = records[m];
    }
  }

  // Curves by member; with `records`, also what validation says.
  std::vector<Curve> train(const Cell& cell, const std::vector<Member>& members, uint64_t seed,
                           const std::string& piece, StageProgress& progress,
                           std::vector<RunRecord>* records) const {
    Rollout rollout(cell.task, members, cell.num_steps, seed, options_.device);
    std::vector<Curve> curves(members.size());
    const auto validate = [&] {
      const std::vector<float> losses = rollout.validation_loss();
      for (size_t m = 0; m < losses.size(); ++m) {
        (*records)[m].validation_losses.push_back(losses[m]);
      }
    };
    if (records != nullptr) validate();
    while (!rollout.done()) {
      const std::vector<float> losses = rollout.step();
      for (size_t m = 0; m < members.size(); ++m) curves[m].push_back(losses[m]);
      progress.advance(piece, static_cast<int64_t>(members.size()));
      if (records != nullptr && is_validation_step(rollout)) validate();
    }
    if (records != nullptr) {
      constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
      const std::vector<float> accuracy = rollout.validation_accuracy();
      for (size_t m = 0; m < members.size(); ++m) {
        const Curve& losses = (*records)[m].validation_losses;
        (*records)[m].validation_loss = losses.empty() ? kNone : losses.back();
        (*records)[m].validation_accuracy = accuracy.empty() ? kNone : accuracy[m];
      }
    }
    return curves;
  }

  const ComparisonOptions& options_;
  const ComparisonEvents& events_;
  RunStore store_;
  std::mutex tuning_mutex_;
  std::vector<CellResult> results_;
};

}  // namespace

void ComparisonOptions::validate() const {
  if (cells.empty()) throw InputError("[task] expected at least one task, got none");
  if (contenders.empty()) throw InputError("[optimizers] expected at least one, got none");
  if (num_seeds < 1)
    throw InputError("[seeds] expected 1 or more, got " + std::to_string(num_seeds));
  if (num_tuning_seeds < 1) {
    throw InputError("[tune-seeds] expected 1 or more, got " + std::to_string(num_tuning_seeds));
  }
  std::set<std::string> seen;
  for (const Contender& contender : contenders) {
    if (!seen.insert(contender.label).second) {
      throw InputError("[optimizers] expected every optimizer once, got " +
                       io::in_quotes(contender.label) + " again");
    }
  }
  for (const Cell& cell : cells) {
    if (cell.num_steps < 1) {
      throw InputError("[steps] expected 1 or more, got " + std::to_string(cell.num_steps));
    }
    if (!seen.insert(cell.label()).second) {
      throw InputError("[task] expected every task and length once, got " + cell.label() +
                       " again");
    }
  }
}

std::vector<CellResult> compare(const ComparisonOptions& options, const ComparisonEvents& events) {
  options.validate();
  return Comparison(options, events).run();
}

}  // namespace mnemosyne::meta
