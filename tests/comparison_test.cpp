#include "mnemosyne/meta/comparison.h"

#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <tuple>

#include "mnemosyne/core/error.h"
#include "mnemosyne/meta/checkpoint.h"
#include "mnemosyne/meta/comparison_report.h"
#include "testing.h"
#include "toy_task.h"

namespace mnemosyne::meta {
namespace {

namespace fs = std::filesystem;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

ComparisonOptions toy_comparison(const std::vector<std::string>& optimizers, bool tune) {
  ComparisonOptions options{.cells = {{std::make_shared<testing::LineTask>(), 60}},
                            .contenders = {},
                            .num_seeds = 2,
                            .num_tuning_seeds = 2};
  for (const std::string& text : optimizers) {
    options.contenders.push_back(parse_contender(text, tune));
  }
  return options;
}

TEST(Contender, ReadsNameAndSuffixes) {
  const Contender plain = parse_contender("adamw", false);
  EXPECT_EQ(plain.label, "adamw");
  EXPECT_FALSE(plain.tuned);
  EXPECT_DOUBLE_EQ(plain.lr, plain.rule->default_lr());
  EXPECT_TRUE(parse_contender("adamw", true).tuned);

  const Contender fixed = parse_contender("mine=adamw@1e-3:cosine", true);
  EXPECT_EQ(fixed.label, "mine@1e-3:cosine");
  EXPECT_FALSE(fixed.tuned);
  EXPECT_DOUBLE_EQ(fixed.lr, 1e-3);
  EXPECT_EQ(fixed.schedule, Schedule::kCosine);

  EXPECT_FALSE(parse_contender("orthogonal", true).tuned) << "has one setting for all tasks";
  EXPECT_TRUE(parse_contender("schedule-free+", false).tuned);
  const Contender told = parse_contender("orthogonal:num_steps", true);
  EXPECT_EQ(told.member(123).options.num_steps, 123);
  EXPECT_FALSE(parse_contender("orthogonal", true).member(123).options.num_steps.has_value());
}

TEST(Contender, WeightsOfTheLibraryHaveNames) {
  const Contender attention = parse_contender("mnemosyne-attention:num_steps", true);
  EXPECT_EQ(attention.label, "mnemosyne-attention:num_steps");
  EXPECT_EQ(attention.rule->name(), "mnemosyne");
  EXPECT_GT(attention.rule->weights().size(), 1u);
  EXPECT_EQ(parse_contender("mnemosyne", true).rule->weights().size(), 1u);
}

TEST(Contender, RefusesEverythingElse) {
  for (const std::string text :
       {"", "nope", "@1e-3", "adamw@", "adamw@x", "adamw@-1", "adamw@0", "adamw@inf", "adamw:warm",
        "adamw@1e-3+", "=adamw", "mine=", "/nowhere.safetensors"}) {
    EXPECT_THROW(parse_contender(text, true), InputError) << text;
  }
}

TEST(TuningGrid, CoversSevenHalfDecadesAtBothSchedules) {
  const TuningGrid grid(1e-3);
  const auto points = grid.missing();
  EXPECT_EQ(points.size(), 14u);
  EXPECT_NEAR(points.front().lr(), std::pow(10, -4.5), 1e-12);
  EXPECT_NEAR(points.back().lr(), std::pow(10, -1.5), 1e-9);
}

// Losses with their minimum at 10^(optimum / 2); how many points are tried and where the search
// ends.
std::pair<size_t, GridPoint> search(double optimum, bool cosine_better) {
  TuningGrid grid(1e-3);
  for (auto missing = grid.missing(); !missing.empty(); missing = grid.missing()) {
    for (const GridPoint& point : missing) {
      const bool cosine = point.schedule == Schedule::kCosine;
      grid.set(point, std::abs(point.half_decade - optimum) + (cosine == cosine_better ? 0 : 0.1));
    }
  }
  return {grid.losses().size(), grid.best()};
}

TEST(TuningGrid, GrowsUntilTheBestIsInside) {
  EXPECT_EQ(search(-5, true), std::pair(size_t{14}, (GridPoint{-5, Schedule::kCosine})));
  EXPECT_EQ(search(-3, false), std::pair(size_t{18}, (GridPoint{-3, Schedule::kConstant})));
  EXPECT_EQ(search(1, false), std::pair(size_t{26}, (GridPoint{1, Schedule::kConstant})));
  EXPECT_EQ(search(-11, true), std::pair(size_t{22}, (GridPoint{-11, Schedule::kCosine})));
}

TEST(TuningGrid, EndsWhenEverythingDivergesAndWhenLossesFallForever) {
  for (const double slope : {0.0, -1.0, 1.0}) {
    TuningGrid grid(1e-3);
    for (auto missing = grid.missing(); !missing.empty(); missing = grid.missing()) {
      for (const GridPoint& point : missing) {
        grid.set(point, slope == 0 ? kInfinity : slope * point.half_decade);
      }
    }
    EXPECT_LT(grid.losses().size(), 60u);
  }
}

TEST(Comparison, TunedBeatsBadRates) {
  const auto results = compare(toy_comparison({"adamw", "adamw@1e-5", "slow=sgd@1e-6"}, true));
  const auto summaries = summarize(results.at(0), {"adamw"});
  ASSERT_EQ(summaries.size(), 3u);
  EXPECT_TRUE(summaries[0].tuned);
  EXPECT_GT(summaries[0].lr, 1e-2);
  EXPECT_LT(summaries[0].training_loss, 0.1 * summaries[1].training_loss);
  EXPECT_DOUBLE_EQ(summaries[0].training_ratios.of_mean_curve.at("adamw"), 1.0);
  EXPECT_LT(geometric_mean(summaries[1].training_ratios.by_seed.at("adamw")), 0.5);
  EXPECT_GE(results[0].contenders[0].grid.size(), 14u);
}

TEST(Comparison, AllContendersOfASeedShareStartAndData) {
  const auto results = compare(toy_comparison({"adamw@1e-3", "sgd@1e-3", "orthogonal"}, false));
  const auto& contenders = results.at(0).contenders;
  for (size_t seed = 0; seed < 2; ++seed) {
    for (const ContenderResult& contender : contenders) {
      EXPECT_FLOAT_EQ(contender.runs[seed].losses[0], contenders[0].runs[seed].losses[0]);
    }
  }
  EXPECT_NE(contenders[0].runs[0].losses[0], contenders[0].runs[1].losses[0]);
}

TEST(Comparison, ThreadsChangeNothing) {
  ComparisonOptions options = toy_comparison({"adamw", "orthogonal"}, true);
  const auto one = compare(options);
  options.num_threads = 3;
  const auto three = compare(options);
  for (size_t i = 0; i < one[0].contenders.size(); ++i) {
    EXPECT_EQ(one[0].contenders[i].lr, three[0].contenders[i].lr);
    EXPECT_EQ(one[0].contenders[i].runs[1].losses, three[0].contenders[i].runs[1].losses);
  }
}

TEST(Comparison, MeasuresHeldOutDataAlongTheRun) {
  const ComparisonOptions options = toy_comparison({"adamw@1e-1", "adamw@1e-3"}, false);
  const auto results = compare(options);
  const RunRecord& run = results[0].contenders[0].runs[1];
  ASSERT_EQ(run.validation_losses.size(), 21u);  // before the run and after every third of 60 steps
  EXPECT_EQ(run.validation_losses.back(), run.validation_loss);
  // Those of a rollout that is looked at by hand.
  const Contender& contender = options.contenders[0];
  Rollout rollout(options.cells[0].task, {contender.member(60, contender.lr, contender.schedule)},
                  60, 1);
  EXPECT_EQ(run.validation_losses[0], rollout.validation_loss()[0]);
  for (int64_t step = 0; step < 30; ++step) rollout.step();
  EXPECT_FLOAT_EQ(run.validation_losses[10], rollout.validation_loss()[0]);

  const auto summaries = summarize(results[0], {"adamw@1e-1"});
  EXPECT_DOUBLE_EQ(summaries[0].validation_ratios.of_mean_curve.at("adamw@1e-1"), 1.0);
  EXPECT_LE(geometric_mean(summaries[1].validation_ratios.by_seed.at("adamw@1e-1")), 0.5);
  const auto overall = overall_ratios({summaries}, {"adamw@1e-1"}, CurveKind::kValidation);
  EXPECT_EQ(overall[1].geometric_mean,
            geometric_mean(summaries[1].validation_ratios.by_seed.at("adamw@1e-1")));
}

/// Nothing is held out.
class TrainingOnly : public testing::LineTask {
 public:
  std::vector<tasks::Batch> validation_batches() const override { return {}; }
};

TEST(Comparison, WithoutHeldOutDataNoRatioIsDefined) {
  ComparisonOptions options = toy_comparison({"adamw@1e-1"}, false);
  options.cells[0].task = std::make_shared<TrainingOnly>();
  const auto results = compare(options);
  EXPECT_TRUE(std::isnan(results[0].contenders[0].runs[0].validation_loss));
  const auto summaries = summarize(results[0], {"adamw@1e-1"});
  EXPECT_TRUE(std::isnan(summaries[0].validation_ratios.of_mean_curve.at("adamw@1e-1")));
  const auto overall = overall_ratios({summaries}, {"adamw@1e-1"}, CurveKind::kValidation);
  EXPECT_TRUE(std::isnan(overall[0].geometric_mean));
}

TEST(Comparison, CountsDivergences) {
  const auto results = compare(toy_comparison({"sgd@1e4", "sgd@1e-3"}, false));
  const auto summaries = summarize(results.at(0), {"sgd@1e-3"});
  EXPECT_EQ(summaries[0].diverged, 2);
  EXPECT_EQ(summaries[1].diverged, 0);
  EXPECT_TRUE(std::isinf(summaries[0].training_loss));
}

class StoredComparison : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::temporary_path("comparison");
    fs::remove_all(folder_);
  }

  ComparisonOptions options(const std::vector<std::string>& optimizers) const {
    ComparisonOptions options = toy_comparison(optimizers, true);
    options.folder = folder_;
    return options;
  }

  // Times of all files below the folder: a piece that is read back keeps its time.
  std::map<std::string, fs::file_time_type> files() const {
    std::map<std::string, fs::file_time_type> result;
    for (const auto& entry : fs::recursive_directory_iterator(folder_)) {
      if (entry.is_regular_file()) result[entry.path().string()] = entry.last_write_time();
    }
    return result;
  }

  std::string folder_;
};

TEST_F(StoredComparison, ReadsFinishedPiecesBackAndAddsOptimizers) {
  const auto first = compare(options({"adamw"}));
  const auto before = files();
  EXPECT_EQ(before.size(), 4u);  // two tuning seeds and two runs
  const auto second = compare(options({"adamw", "orthogonal"}));
  const auto after = files();
  EXPECT_EQ(after.size(), 6u);
  for (const auto& [path, time] : before) EXPECT_EQ(after.at(path), time) << path;
  EXPECT_EQ(first[0].contenders[0].runs[0].losses, second[0].contenders[0].runs[0].losses);
  EXPECT_EQ(first[0].contenders[0].lr, second[0].contenders[0].lr);
}

/// The same task, whose members gain nothing from one another's company.
class ApartTask : public testing::LineTask {
 public:
  bool is_batched() const override { return false; }
};

TEST_F(StoredComparison, RunsOfAnEarlierVersionAreRunAgain) {
  ComparisonOptions one = options({"x=sgd@1e-3"});
  const auto results = compare(one);
  const RunStore store(folder_);
  const auto before = files();
  ASSERT_EQ(before.size(), 2u);
  const std::string path = before.begin()->first;
  const io::TensorFile file = load_checkpoint(path);
  NamedTensors without;  // what was not kept then
  for (const auto& [name, tensor] : file.tensors) {
    if (name != "validation_losses") without.emplace_back(name, tensor);
  }
  ASSERT_EQ(without.size() + 1, file.tensors.size());
  save_checkpoint(path, without, {{"settings", file.metadata.at("settings")}});
  const auto again = compare(one);
  EXPECT_EQ(again[0].contenders[0].runs[0].validation_losses,
            results[0].contenders[0].runs[0].validation_losses);
  EXPECT_EQ(load_checkpoint(path).tensors.size(), file.tensors.size());
}

TEST_F(StoredComparison, MembersThatAreNotBatchedRunApart) {
  ComparisonOptions apart = options({"adamw", "orthogonal", "sgd@1e-3"});
  apart.cells[0].task = std::make_shared<ApartTask>();
  apart.num_threads = 3;
  int64_t done = 0, total = 0;
  const auto count = [&](const ComparisonProgress& progress) {
    if (progress.stage == "running")
      std::tie(done, total) = std::tie(progress.done, progress.total);
  };
  const auto results = compare(apart, {.on_progress = count});
  EXPECT_EQ(done, total);
  EXPECT_EQ(total, 3 * 2 * 60);
  EXPECT_EQ(results[0].contenders[0].lr,
            compare(toy_comparison({"adamw"}, true))[0].contenders[0].lr);
  // Each as if nobody else took part, bit for bit.
  for (const size_t i : {1, 2}) {
    const char* const names[] = {"adamw", "orthogonal", "sgd@1e-3"};
    const auto alone = compare(toy_comparison({names[i]}, false));
    for (size_t seed = 0; seed < 2; ++seed) {
      const RunRecord &a = results[0].contenders[i].runs[seed],
                      &b = alone[0].contenders[0].runs[seed];
      EXPECT_EQ(a.losses, b.losses);
      EXPECT_EQ(a.validation_losses, b.validation_losses);
    }
  }
  const auto before = files();
  compare(apart);
  EXPECT_EQ(files(), before) << "all points of a seed's search are kept";
}

TEST_F(StoredComparison, ContinuesAfterAnInterruption) {
  const auto whole = compare(toy_comparison({"adamw", "sgd"}, true));
  int64_t asked = 0;
  EXPECT_THROW(compare(options({"adamw", "sgd"}), {.should_stop = [&] { return ++asked > 150; }}),
               Interrupted);
  EXPECT_GE(files().size(), 1u);
  const auto resumed = compare(options({"adamw", "sgd"}));
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(whole[0].contenders[i].lr, resumed[0].contenders[i].lr);
    EXPECT_EQ(whole[0].contenders[i].runs[0].losses, resumed[0].contenders[i].runs[0].losses);
  }
}

TEST_F(StoredComparison, PiecesOfOtherSettingsAreNotReadBack) {
  ComparisonOptions other = options({"x=sgd@1e-3", "adamw"});
  const auto first = compare(other);
  other.contenders[0].lr = 1e-2;
  const auto second = compare(other);
  EXPECT_NE(first[0].contenders[0].runs[0].losses, second[0].contenders[0].runs[0].losses);
}

TEST_F(StoredComparison, RunsOnOtherDataAreNotReadBack) {
  ComparisonOptions own = options({"x=sgd@1e-3"});
  const auto on = [&](std::shared_ptr<const tasks::Task> task) {
    own.cells[0].task = std::move(task);
    compare(own);
    return files();
  };
  const auto published = on(std::make_shared<testing::LineTask>());
  EXPECT_EQ(on(std::make_shared<testing::LineTask>()), published);
  const auto first = on(std::make_shared<testing::OwnDataTask>("1"));
  EXPECT_NE(first, published);
  EXPECT_EQ(on(std::make_shared<testing::OwnDataTask>("1")), first);
  EXPECT_NE(on(std::make_shared<testing::OwnDataTask>("2")), first);
}

// Rates are tuned for a length and schedules know it: a longer run is another run.
TEST_F(StoredComparison, OtherLengthsStandBesideFinishedOnes) {
  ComparisonOptions more = options({"adamw"});
  compare(more);
  const auto before = files();
  more.cells.push_back({more.cells[0].task, 90});
  const auto results = compare(more);
  const auto after = files();
  EXPECT_EQ(after.size(), 2 * before.size());
  for (const auto& [path, time] : before) EXPECT_EQ(after.at(path), time) << path;
  EXPECT_EQ(results[1].contenders[0].runs[0].losses.size(), 90u);
}

TEST(Comparison, RefusesBadOptions) {
  const auto spoiled = [](const std::function<void(ComparisonOptions&)>& spoil) {
    ComparisonOptions options = toy_comparison({"sgd"}, false);
    spoil(options);
    return options;
  };
  for (const ComparisonOptions& options :
       {spoiled([](auto& o) { o.cells.clear(); }), spoiled([](auto& o) { o.contenders.clear(); }),
        spoiled([](auto& o) { o.num_seeds = 0; }), spoiled([](auto& o) { o.num_tuning_seeds = 0; }),
        spoiled([](auto& o) { o.cells[0].num_steps = 0; }),
        spoiled([](auto& o) { o.cells.push_back(o.cells[0]); }),
        spoiled([](auto& o) { o.contenders.push_back(o.contenders[0]); })}) {
    EXPECT_THROW(compare(options), InputError);
  }
  const auto results = compare(toy_comparison({"sgd"}, false));
  EXPECT_THROW(summarize(results[0], {"adamw"}), InputError);
}

TEST(ComparisonReport, OverallIsTheGeometricMeanOverCellsAndSeeds) {
  const auto cell = [](const std::string& name, std::vector<double> ratios) {
    ContenderSummary summary{.cell = name, .label = "ours"};
    summary.training_ratios.by_seed["adamw"] = std::move(ratios);
    summary.training_ratios.of_mean_curve["adamw"] = 1.5;
    return std::vector<ContenderSummary>{summary};
  };
  const auto overall = overall_ratios({cell("a", {2.0, 8.0}), cell("b", {0.5, 0.5})}, {"adamw"});
  ASSERT_EQ(overall.size(), 1u);
  EXPECT_NEAR(overall[0].geometric_mean, std::sqrt(2.0), 1e-12);
  EXPECT_NEAR(overall[0].worst, 0.5, 1e-12);
  EXPECT_EQ(overall[0].worst_cell, "b");
  EXPECT_NEAR(overall[0].low, 0.5, 1e-12);
  EXPECT_NEAR(overall[0].high, 4.0, 1e-12);
  EXPECT_NEAR(overall[0].mean_curve, 1.5, 1e-12);
}

}  // namespace
}  // namespace mnemosyne::meta
