#include "mnemosyne/meta/training.h"

#include <cmath>
#include <filesystem>
#include <functional>
#include <numbers>

#include "mnemosyne/core/error.h"
#include "mnemosyne/io/file.h"
#include "mnemosyne/io/safetensors.h"
#include "testing.h"
#include "toy_task.h"

namespace mnemosyne::meta {
namespace {

namespace fs = std::filesystem;

std::string fresh_folder(const std::string& name) {
  const fs::path folder = testing::temporary_path(name);
  fs::remove_all(folder);
  return folder.string();
}

TrainingOptions toy_training(const std::string& folder, const std::string& optimizer) {
  return {.task = std::make_shared<testing::LineTask>(),
          .optimizer = parse_contender(optimizer, false),
          .num_steps = 60,
          .seed = 3,
          .folder = folder,
          .validate_every = 20,
          .checkpoint_every = 10};
}

/// A loss that falls by one for every unit of its only parameter.
class SlopeTask : public testing::LineTask {
 public:
  std::vector<std::string> param_names() const override { return {"x"}; }
  std::vector<at::Tensor> init(uint64_t) const override { return {at::zeros({1})}; }
  std::vector<tasks::Batch> validation_batches() const override { return {}; }
  at::Tensor loss(at::TensorList params, const tasks::Batch&) const override {
    return params[0].select(1, 0);
  }
};

TEST(Training, LowersTheLossAndLeavesTheWeightsByName) {
  const std::string folder = fresh_folder("training_loss");
  std::vector<TrainingReport> reports;
  const TrainingResult result =
      train(toy_training(folder, "adamw@3e-1"),
            {.on_step = [&](const TrainingReport& report) { reports.push_back(report); }});
  EXPECT_TRUE(result.finished);
  ASSERT_EQ(reports.size(), 60u);
  EXPECT_LT(result.last.smoothed_loss, 0.05 * reports.front().loss);
  EXPECT_LT(result.last.validation_loss, 0.1 * reports.front().loss);
  EXPECT_TRUE(reports[19].validated && !reports[20].validated);
  const auto weights = io::read_safetensors(folder + "/weights.safetensors");
  EXPECT_EQ(find(weights.tensors, "weight").sizes(), (std::vector<int64_t>{4}));
  EXPECT_EQ(weights.metadata.at("task"), "toy");
}

class ResumedTraining : public ::testing::TestWithParam<std::string> {};

// Stopped at different places: at a checkpoint, between two, and killed (the newest checkpoint is
// of an earlier step than the newest metrics).
TEST_P(ResumedTraining, EndsBitForBitLikeAnUninterruptedOne) {
  const std::string whole = fresh_folder("training_whole");
  train(toy_training(whole, GetParam()));
  for (const int64_t stop : {20, 33}) {
    const std::string parts = fresh_folder("training_parts");
    TrainingOptions options = toy_training(parts, GetParam());
    const TrainingResult first = train(
        options, {.should_stop = [calls = int64_t{0}, stop]() mutable { return ++calls == stop; }});
    EXPECT_FALSE(first.finished);
    EXPECT_EQ(first.last.step, stop);
    options.resume = true;
    const TrainingResult second = train(options);
    EXPECT_EQ(second.first_step, stop);
    for (const char* file : {"/metrics.jsonl", "/weights.safetensors"}) {
      EXPECT_EQ(io::read_file(parts + file), io::read_file(whole + file)) << file << stop;
    }
  }
}

TEST_P(ResumedTraining, DropsWhatAKilledRunWroteAfterItsCheckpoint) {
  const std::string whole = fresh_folder("training_whole");
  train(toy_training(whole, GetParam()));
  const std::string killed = fresh_folder("training_killed");
  TrainingOptions options = toy_training(killed, GetParam());
  std::string early;
  train(options, {.on_step = [&](const TrainingReport& report) {
          // The checkpoint of step 30 is written after this call for step 30.
          if (report.step == 31) early = io::read_file(killed + "/checkpoint.safetensors");
        }});
  io::write_file(killed + "/checkpoint.safetensors", {early});
  options.resume = true;
  EXPECT_EQ(train(options).first_step, 30);
  EXPECT_EQ(io::read_file(killed + "/metrics.jsonl"), io::read_file(whole + "/metrics.jsonl"));
  EXPECT_EQ(io::read_file(killed + "/weights.safetensors"),
            io::read_file(whole + "/weights.safetensors"));
}

// The run of 60 steps goes on to 90, after its end and after an interruption before it.
TEST_P(ResumedTraining, LengthensARunBitForBitWhereNothingKnowsTheLength) {
  const bool knows = GetParam().find(':') != std::string::npos;
  const std::string whole = fresh_folder("training_longer");
  TrainingOptions longer = toy_training(whole, GetParam());
  longer.num_steps = 90;
  train(longer);
  for (const int64_t stop : {60, 33}) {
    const std::string parts = fresh_folder("training_lengthened");
    TrainingOptions options = toy_training(parts, GetParam());
    train(options,
          {.should_stop = [calls = int64_t{0}, stop]() mutable { return ++calls == stop; }});
    EXPECT_EQ(steps_of_run(parts), 60);
    options.resume = true;
    options.num_steps = 90;
    const TrainingResult result = train(options);
    EXPECT_EQ(result.first_step, stop);
    EXPECT_TRUE(result.finished && result.last.num_steps == 90 && result.last.step == 90);
    EXPECT_EQ(steps_of_run(parts), 90);
    EXPECT_EQ(io::read_safetensors(parts + "/weights.safetensors").metadata.at("steps"), "90");
    for (const char* file : {"/metrics.jsonl", "/weights.safetensors"}) {
      EXPECT_EQ(io::read_file(parts + file) == io::read_file(whole + file), !knows) << file << stop;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Rules, ResumedTraining,
                         ::testing::Values("sgd", "adamw:cosine", "muon", "orthogonal:num_steps",
                                           "schedule-free", "adafactor"));

// Steps 0 to 19 are those of a run of 20, the others those of a run of 40 at the same place.
TEST(Training, ALengthenedCosineContinuesOnTheNewCourse) {
  const auto rates = [](const std::string& folder, int64_t num_steps, bool resume) {
    // A constant gradient of 1: a step's change is its rate times the momentum's sum so far.
    TrainingOptions options = toy_training(folder, "sgd@1e-1:cosine");
    options.task = std::make_shared<SlopeTask>();
    options.num_steps = num_steps;
    options.resume = resume;
    std::vector<double> losses;
    train(options,
          {.on_step = [&](const TrainingReport& report) { losses.push_back(report.loss); }});
    return losses;
  };
  const std::string folder = fresh_folder("training_cosine");
  std::vector<double> losses = rates(folder, 20, false);
  for (const double loss : rates(folder, 40, true)) losses.push_back(loss);
  ASSERT_EQ(losses.size(), 40u);
  double momentum = 0.0;
  for (int step = 0; step + 1 < 40; ++step) {
    const double progress = step / (step < 20 ? 20.0 : 40.0);
    const double rate = 0.1 * 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
    momentum = 0.9 * momentum + 1.0;
    EXPECT_NEAR(losses[step] - losses[step + 1], rate * momentum, 1e-5) << step;
  }
}

TEST(Training, ARunMayBeShortenedButNotBelowItsSteps) {
  const std::string folder = fresh_folder("training_shorter");
  TrainingOptions options = toy_training(folder, "adamw");
  train(options, {.should_stop = [calls = 0]() mutable { return ++calls == 33; }});
  options.resume = true;
  options.num_steps = 32;
  try {
    train(options);
    ADD_FAILURE() << "expected an InputError";
  } catch (const InputError& error) {
    EXPECT_EQ(std::string(error.what()),
              "[steps] expected 33 or more, which the run in " + folder + " has taken, got 32");
  }
  options.num_steps = 40;
  const TrainingResult result = train(options);
  EXPECT_TRUE(result.finished && result.last.step == 40);
}

TEST(Training, StepsOfARunAreThoseOfItsCheckpoint) {
  EXPECT_EQ(steps_of_run(fresh_folder("training_none")), std::nullopt);
  const std::string folder = fresh_folder("training_steps");
  train(toy_training(folder, "sgd"));
  EXPECT_EQ(steps_of_run(folder), 60);
  io::write_safetensors(folder + "/checkpoint.safetensors", {}, {{"steps", "many"}});
  EXPECT_THROW(steps_of_run(folder), InputError);
}

TEST(Training, IsNotResumedOnOtherData) {
  const std::string folder = fresh_folder("training_data");
  TrainingOptions options = toy_training(folder, "sgd");
  const auto on = [&](const std::string& data) {
    options.task = std::make_shared<testing::OwnDataTask>(data);
    return options;
  };
  train(on("1"));
  options.resume = true;
  EXPECT_TRUE(train(on("1")).finished);
  EXPECT_THROW(train(on("2")), InputError);
  EXPECT_THROW(train(on("")), InputError) << "published data of the same name";
}

TEST(Training, RefusesToOverwriteOrMixRuns) {
  const std::string folder = fresh_folder("training_mixed");
  TrainingOptions options = toy_training(folder, "sgd");
  train(options);
  EXPECT_THROW(train(options), InputError) << "the folder holds a run";
  options.resume = true;
  EXPECT_TRUE(train(options).finished) << "a finished run may be resumed";
  for (const std::string changed : {"adam", "sgd@1e-3", "sgd:cosine"}) {
    TrainingOptions other = toy_training(folder, changed);
    other.resume = true;
    EXPECT_THROW(train(other), InputError) << changed;
  }
  options.seed = 4;
  EXPECT_THROW(train(options), InputError);
}

TEST(Training, RefusesADamagedCheckpoint) {
  const std::string folder = fresh_folder("training_damaged");
  TrainingOptions options = toy_training(folder, "adamw");
  train(options);
  options.resume = true;
  const std::string path = folder + "/checkpoint.safetensors";
  const std::string good = io::read_file(path);
  for (const size_t at : {good.size() - 1, good.size() - 60, good.size() / 2, size_t{20}}) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x10);
    io::write_file(path, {bad});
    EXPECT_THROW(train(options), InputError) << at;
  }
  io::write_file(path, {std::string_view(good).substr(0, good.size() - 8)});
  EXPECT_THROW(train(options), InputError);
}

TEST(Training, RefusesOptionsOutOfRange) {
  for (const auto& spoil : std::vector<std::function<void(TrainingOptions&)>>{
           [](TrainingOptions& options) { options.num_steps = 0; },
           [](TrainingOptions& options) { options.validate_every = -1; },
           [](TrainingOptions& options) { options.checkpoint_every = -1; },
           [](TrainingOptions& options) { options.weight_decay = -0.1; }}) {
    TrainingOptions options = toy_training("", "sgd");
    spoil(options);
    EXPECT_THROW(train(options), InputError);
  }
}

TEST(Training, ResumeWithoutACheckpointStartsAtTheBeginning) {
  TrainingOptions options = toy_training(fresh_folder("training_empty"), "sgd");
  options.resume = true;
  EXPECT_EQ(train(options).first_step, 0);
}

}  // namespace
}  // namespace mnemosyne::meta
